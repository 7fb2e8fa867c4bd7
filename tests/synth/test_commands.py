"""The command against the demo endpoint, each in its own process as users run them."""

import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from e5jax.cli import main
from e5jax.config.load import load_tree
from e5jax.data.records import parse_example
from e5jax.synth.config import Synth
from e5jax.synth.families import FAMILIES
from e5jax.synth.languages import choices
from e5jax.synth.plan import shares
from e5jax.synth.validate import validate
from e5jax.workdir import lock

ROOT = Path(__file__).parents[2]
CANARY = "sk-canary-0d4c81aa7be2946f"
DEMO = ROOT / "configs/synth_demo.py"
EXAMPLES = int(os.environ.get("E5JAX_SYNTH_EXAMPLES", "60"))


def words(address: str, output: Path, *overrides: str) -> list[str]:
    return [
        "synth",
        f"--config={DEMO}",
        f"--output={output}",
        f"--config.endpoint.base_url={address}",
        *(f"--config.{override}" for override in overrides),
    ]


def requests_of(output: Path) -> int:
    return json.loads((output / "stats.json").read_text("utf-8"))["requests"]["requests"]


@pytest.fixture(scope="module")
def output(address, tmp_path_factory) -> Path:
    """A run that is over."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    assert main(words(address, folder, f"examples={EXAMPLES}")) == 0
    return folder


def test_a_run_has_the_shares_and_languages_that_were_asked_for_and_nothing_twice(output):
    made = [
        parse_example(line, path.name)
        for path in (output / "examples").iterdir()
        for line in path.read_text("utf-8").splitlines()
    ]
    details = [
        json.loads(line) for line in (output / "details.jsonl").read_text("utf-8").splitlines()
    ]
    found = json.loads((output / "stats.json").read_text("utf-8"))
    assert len(made) == len(details) > 0.99 * EXAMPLES - 1
    assert len({example.id for example in made}) == len(made)
    assert len({(example.source, example.query) for example in made}) == len(made)
    assert found["language_identified"] + found["language_unchecked"] == len(made)
    assert found["language_identified"] > 0.8 * len(made)
    families = {family.name: share for family, share in zip(FAMILIES, shares(Synth()), strict=True)}
    whole = sum(families.values())
    languages = choices(load_tree(Synth, validate, str(DEMO)).languages).shares()
    for kind, wanted in [
        ("family", {name: share / whole for name, share in families.items()}),
        ("language", languages),
    ]:
        counted = Counter(line[kind] for line in details)  # the first of a pair
        assert set(counted) <= set(wanted)
        off = {name: abs(counted[name] - len(made) * share) for name, share in wanted.items()}
        sigmas = {
            name: off[name] / math.sqrt(len(made) * share * (1 - share) or 1)
            for name, share in wanted.items()
        }
        worst = max(sigmas, key=sigmas.__getitem__)
        print(
            f"{len(made)} examples, {kind}: at most {sigmas[worst]:.2f} standard deviations off ({worst})"
        )
        # Few examples are no normal distribution: a rare language has one or two of a few dozen.
        assert all(
            sigmas[name] <= (3 if EXAMPLES >= 5_000 else 4) or off[name] <= 2 for name in wanted
        )


def test_a_run_that_is_over_repeats_itself_without_asking(output, address):
    counted = ("journal.jsonl", "journal.sent", "stats.json", "report.html")  # of all runs together
    files = {
        path: path.read_bytes()
        for path in output.rglob("*")
        if path.is_file() and path.name not in counted
    }
    asked = requests_of(output)
    assert main(words(address, output, f"examples={EXAMPLES}")) == 0
    assert requests_of(output) == asked
    assert files == {path: path.read_bytes() for path in files}


def test_batches_bring_the_same_examples_for_less(address, tmp_path):
    asked, batched = tmp_path / "asked", tmp_path / "batched"
    assert main(words(address, asked, "examples=30")) == 0
    assert (
        main(
            words(
                address,
                batched,
                "examples=30",
                "endpoint.api=batch",
                "endpoint.poll=0.1",
                "endpoint.concurrency=20",
            )
        )
        == 0
    )
    folders = [
        {path.name: path.read_bytes() for path in (root / "examples").iterdir()}
        for root in (asked, batched)
    ]
    assert folders[0] == folders[1]
    one, other = (
        json.loads((root / "stats.json").read_text("utf-8"))["requests"]
        for root in (asked, batched)
    )
    assert (other["requests"], other["replies"]) == (one["requests"], one["replies"])
    assert other["money"] == pytest.approx(one["money"] / 2)
    assert len(list((batched / "batches").iterdir())) > 1


def test_another_configuration_is_refused_but_checks_and_endpoint_may_change(
    address, tmp_path, capsys
):
    output = tmp_path / "run"
    assert main(words(address, output, "examples=12")) == 0
    assert main(words(address, output, "examples=13")) == 3
    assert "config.examples: 12 -> 13" in capsys.readouterr().err
    asked = requests_of(output)
    assert (
        main(
            words(
                address,
                output,
                "examples=12",
                "checks.attempts=1",
                "endpoint.concurrency=2",
                "budget.requests=1000",
            )
        )
        == 0
    )
    assert requests_of(output) == asked


def test_a_spent_budget_ends_the_run_with_what_there_is(address, tmp_path, capsys):
    output = tmp_path / "run"
    assert main(words(address, output, "examples=40", "budget.requests=20")) == 1
    assert "still to be asked for" in capsys.readouterr().out
    found = json.loads((output / "stats.json").read_text("utf-8"))
    assert not found["complete"]
    assert found["examples"]["open"] > 0
    assert main(words(address, output, "examples=40")) == 0


def test_an_interrupted_run_exits_75_and_goes_on(address, tmp_path):
    output = tmp_path / "run"
    command = [
        sys.executable,
        "-m",
        "e5jax",
        *words(address, output, "examples=2000", "endpoint.concurrency=4"),
    ]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        while (
            not (output / "journal.jsonl").exists()
            or (output / "journal.jsonl").stat().st_size < 20_000
        ):
            assert process.poll() is None
            time.sleep(0.05)
        os.kill(process.pid, signal.SIGINT)
        _, said = process.communicate(timeout=120)
    assert process.returncode == 75
    assert "Traceback" not in said
    assert (
        json.loads((output / "stats.json").read_text("utf-8"))["halted"]
        == "interrupted; the same command goes on"
    )


def test_a_dry_run_asks_nothing_and_writes_nothing(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert (
        main(
            [
                "synth",
                f"--config={DEMO}",
                "--dry-run",
                "--config.endpoint.base_url=http://127.0.0.1:9/v1",
            ]
        )
        == 0
    )
    printed = capsys.readouterr().out
    assert re.search(r"^all +5,\d{3} ", printed, re.MULTILINE)
    assert re.search(r"^cost: \d", printed, re.MULTILINE)
    for name in ("short-long", "long-short", "short-short", "long-long", "sts", "bitext"):
        assert f"--- {name} ---" in printed
    assert not list(tmp_path.iterdir())


def test_a_wrong_configuration_exits_3_and_writes_nothing(tmp_path, capsys):
    assert (
        main(["synth", f"--config={DEMO}", f"--output={tmp_path / 'run'}", "--config.examples=0"])
        == 3
    )
    assert "config.examples=0" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("fault", ["key", "lock", "folder"])
def test_what_keeps_a_run_from_starting_is_said_before_anything_is_written(
    fault, tmp_path, capsys, monkeypatch
):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    output = tmp_path / "run"
    said = {
        "key": "OPENAI_API_KEY holds no key",
        "lock": "another process is at work",
        "folder": "choose another --output",
    }
    command = ["synth", f"--config={ROOT / 'configs/synth_e5.py'}", f"--output={output}"]
    if fault == "folder":
        (tmp_path / "file").touch()
        command[-1] = f"--output={tmp_path / 'file' / 'run'}"
    if fault == "lock":
        output.mkdir()
    before = sorted(tmp_path.rglob("*"))
    if fault != "key":
        monkeypatch.setenv("OPENAI_API_KEY", CANARY)
    with lock.hold(tmp_path / ("run/.journal.jsonl.lock" if fault == "lock" else "other"), "", ""):
        assert main(command) == 3
    assert said[fault] in capsys.readouterr().err
    assert sorted(tmp_path.rglob("*")) == before


def test_a_package_that_is_missing_is_named_with_its_extra():
    without = "import sys; sys.modules['openai'] = None; from e5jax.cli import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", without, "synth", f"--config={DEMO}", "--dry-run"]
    process = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=100
    )
    assert process.returncode == 3
    assert (
        process.stderr
        == "e5jax: `e5jax synth` needs the package openai: pip install 'e5jax[synth]'\n"
    )


def test_no_command_line_holds_the_key_and_a_run_starts_no_lasting_process(address, tmp_path):
    environment = {**os.environ, "OPENAI_API_KEY": CANARY, "TEAM": CANARY, "OPENAI_LOG": "debug"}
    overrides = (
        "examples=12",
        "endpoint.key_variable=OPENAI_API_KEY",
        "endpoint.headers=('X-Team: $TEAM',)",
    )
    command = [
        sys.executable,
        "-X",
        "dev",
        "-W",
        "ignore",
        "-m",
        "e5jax",
        *words(address, tmp_path / "run", *overrides),
    ]
    samples: Counter[int] = Counter()
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as process:
        while process.poll() is None:
            for pid, parent in parents().items():
                assert CANARY.encode() not in of_process(pid, "cmdline")
                if parent == process.pid or parent in samples:
                    samples[pid] += 1
            time.sleep(0.05)
        assert process.stdout is not None
        said = process.stdout.read()
    assert process.returncode == 0, said
    assert max(samples.values(), default=1) == 1  # a library runs `uname`
    assert b"DEBUG" in said
    assert CANARY.encode() not in said
    assert not [
        path
        for path in tmp_path.rglob("*")
        if path.is_file() and CANARY.encode() in path.read_bytes()
    ]


def parents() -> dict[int, int]:
    """The parent of every process on this machine."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        if stat := of_process(int(folder.name), "stat"):
            found[int(folder.name)] = int(stat.rpartition(b")")[2].split()[1])
    return found


def of_process(pid: int, name: str) -> bytes:
    """Nothing, once it is gone."""
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:
        return b""
