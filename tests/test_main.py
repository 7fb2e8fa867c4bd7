"""The command line: exit codes, and one line for whatever is wrong."""

import re
import subprocess
import sys

import jax
import pytest

import e5jax
from e5jax.cli import main
from e5jax.config.load import load
from e5jax.config.serialize import to_json
from e5jax.errors import ConfigError, RunError
from tests.config import test_load, test_validate
from tests.config.test_load import PAPER, ROOT, config_file

STAGES = ("run", "data", "train", "export", "eval", "mine", "plan", "synth")
WRONG = {**test_load.WRONG, **test_validate.WRONG}


def e5jax_process(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "e5jax", *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


def one_line(text: str) -> str:
    """The line that is the whole of stderr."""
    (line,) = text.splitlines()
    assert line.startswith("e5jax: ")
    assert text.endswith("\n")
    return line


@pytest.mark.parametrize(
    "words",
    [
        ["trian", f"--config={PAPER}"],
        [],
        ["train", f"--config={PAPER}", "--steps=3"],
        ["train", f"--config={PAPER}", "more"],
        ["train", f"--config={PAPER}", "--config.seed", "5"],
        ["train", f"--conf={PAPER}"],
        ["run"],
        ["data", "--workdir=x"],
        ["train", "--workdir=x"],
        ["export", "--workdir=x"],
        ["export", "--output=x"],
        ["export", "--workdir=x", "--output=y", "--format=gguf"],
        ["eval", "--model=x", "--output=y"],
        ["plan", f"--config={PAPER}"],
        ["plan", "--topology=v5e:4x4"],
        ["plan", f"--config={PAPER}", "--topology=v5e:4x4", "--slices=two"],
        ["eval", "--model=x", "--tasks=y"],
        ["eval", "--tasks=x", "--output=y"],
        ["eval", "--model=x", "--tasks=y", "--output=z", "--backend=tpu"],
    ],
    ids=" ".join,
)
def test_wrong_stage_or_option_exits_2_and_prints_the_usage(words, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as caught:
        main(words)
    assert caught.value.code == 2
    assert "usage: e5jax" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_misspelt_option_is_named(capsys):
    with pytest.raises(SystemExit):
        main(["train", f"--config={PAPER}", "--wrokdir=x"])
    assert "--wrokdir=x" in capsys.readouterr().err


@pytest.mark.parametrize("name", WRONG)
def test_wrong_configuration_exits_3_with_one_line_and_writes_nothing(
    name, capsys, tmp_path, monkeypatch
):
    text, overrides, named = WRONG[name]
    path = config_file(tmp_path, text) if "\n" in text else text
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    assert main(["train", f"--config={path}", f"--workdir={here / 'run'}", *overrides]) == 3
    printed = capsys.readouterr()
    line = one_line(printed.err)
    for words in named:
        assert words in line
    assert printed.out == ""
    assert not list(here.iterdir())


@pytest.mark.parametrize("stage", ["run", "data", "train"])
def test_every_stage_with_a_config_refuses_a_wrong_one(stage, capsys, tmp_path):
    assert (
        main([stage, f"--config={PAPER}", f"--workdir={tmp_path / 'run'}", "--config.lora.rank=0"])
        == 3
    )
    assert "config.lora.rank=0" in one_line(capsys.readouterr().err)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("stage", STAGES)
def test_every_stage_has_help(stage, capsys):
    with pytest.raises(SystemExit) as caught:
        main([stage, "--help"])
    assert caught.value.code == 0
    assert f"usage: e5jax {stage}" in capsys.readouterr().out


def test_help_names_every_stage(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["--help"])
    assert caught.value.code == 0
    printed = capsys.readouterr().out
    assert [stage for stage in STAGES if f"\n    {stage} " not in printed] == []


def test_version_tells_package_commit_and_libraries(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["--version"])
    assert caught.value.code == 0
    first, rest = capsys.readouterr().out.splitlines()
    assert re.fullmatch(
        rf"e5jax {re.escape(e5jax.__version__)} \(commit (unknown|[0-9a-f]{{40}}\+?)\)", first
    )
    assert f"jax {jax.__version__}, " in rest


@pytest.mark.parametrize(
    "words",
    [
        ["export", "--workdir=x", "--output=y"],
        ["eval", "--model=x", "--tasks=STSBenchmark", "--output=y"],
    ],
    ids=" ".join,
)
def test_override_for_a_stage_without_config_is_refused(words, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main([*words, "--config.seed=3"]) == 3
    line = one_line(capsys.readouterr().err)
    assert "--config.seed=3" in line
    assert f"`e5jax {words[0]}`" in line
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("raised", "code", "said"),
    [
        (RunError("step 7: loss=nan"), 1, "e5jax: step 7: loss=nan"),
        (KeyboardInterrupt(), 1, "e5jax: interrupted"),
        (ConfigError("config.mesh: no"), 3, "e5jax: config.mesh: no"),
    ],
    ids=["RunError", "KeyboardInterrupt", "ConfigError"],
)
def test_what_stops_a_run_is_one_line_and_an_exit_code(
    raised, code, said, capsys, tmp_path, monkeypatch
):
    def stopped(*_, **__):
        raise raised

    monkeypatch.setattr("e5jax.pipeline.run", stopped)
    assert main(["train", f"--config={PAPER}", f"--workdir={tmp_path}"]) == code
    assert one_line(capsys.readouterr().err).startswith(said)


@pytest.mark.parametrize(
    ("stage", "options", "only", "allow"),
    [
        ("run", [], None, False),
        ("data", [], "data", False),
        ("train", [], "train", False),
        ("run", ["--allow-change"], None, True),
        ("train", ["--allow-change"], "train", True),
    ],
)
def test_a_stage_gets_config_workdir_and_whether_changes_are_allowed(
    stage, options, only, allow, tmp_path, monkeypatch
):
    seen = []
    monkeypatch.setattr(
        "e5jax.pipeline.run",
        lambda config, workdir, only, _, allow: seen.append((config, workdir.root, only, allow)),
    )
    assert (
        main([stage, f"--config={PAPER}", f"--workdir={tmp_path}", "--config.seed=5", *options])
        == 0
    )
    assert seen == [(load(PAPER, ["--config.seed=5"]), tmp_path, only, allow)]


def test_workdir_is_named_after_the_config_when_not_given(monkeypatch):
    seen = []
    monkeypatch.setattr(
        "e5jax.pipeline.run", lambda _, workdir, *__: seen.append(str(workdir.root))
    )
    assert main(["run", f"--config={PAPER}"]) == 0
    assert seen == ["runs/e5_mistral_7b"]


def test_export_of_a_directory_that_is_no_run_is_refused(capsys, tmp_path):
    assert main(["export", f"--workdir={tmp_path}", f"--output={tmp_path / 'out'}"]) == 3
    assert f"--workdir={tmp_path}" in one_line(capsys.readouterr().err)
    assert not list(tmp_path.iterdir())


def test_a_directory_of_another_run_is_refused(capsys, tmp_path):
    (tmp_path / "config.json").write_text(
        to_json(load(PAPER, ["--config.seed=1"])), encoding="utf-8"
    )
    assert main(["train", f"--config={PAPER}", f"--workdir={tmp_path}"]) == 3
    assert "config.seed: 1 -> 0" in one_line(capsys.readouterr().err)


def test_nothing_to_build_is_said_by_the_data_stage(capsys, tmp_path):
    assert load(PAPER).data.harvest is None
    assert main(["data", f"--config={PAPER}", f"--workdir={tmp_path}"]) == 3
    assert "config.data.harvest" in one_line(capsys.readouterr().err)


def test_process_exits_3_with_one_line_and_no_traceback(tmp_path):
    done = e5jax_process(
        "train",
        f"--config={PAPER}",
        f"--workdir={tmp_path / 'run'}",
        "--config.optim.lerning_rate=1",
    )
    assert done.returncode == 3
    assert "did you mean learning_rate?" in one_line(done.stderr)
    assert done.stdout == ""
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("code", [1, 3])
def test_an_error_does_not_wait_for_what_was_left_in_the_background(code):
    left = f"import threading, time; threading.Thread(target=time.sleep, args=(100,), daemon={code != 1}).start()"
    script = f"{left}\nfrom e5jax import cli as it\nit.main = lambda: print('said') or {code}\nit.command()"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout) == (code, "said\n")


def test_process_exits_2_for_an_unknown_stage():
    done = e5jax_process("trian")
    assert done.returncode == 2
    assert "trian" in done.stderr
    assert "Traceback" not in done.stderr
