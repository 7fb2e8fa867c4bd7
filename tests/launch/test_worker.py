"""A run on this machine: begun once, in the background or in place of the launcher, asked, read and stopped by name."""

import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from launch.launcher import record
from launch.launcher.record import Files
from tests.config.test_load import ROOT
from tests.launch.runs import forget, said, until

RUN = f"test-worker-{os.getpid()}"  # of this worker of pytest
# A program that stands for the trainer: it is told to stop by SIGTERM, and says what it was given.
PROGRAM = """#!/bin/sh
trap 'echo saved; exit 75' TERM
echo "given: $*"
echo "key: ${HF_TOKEN:-none}, threads: $THREADS, process ${JAX_PROCESS_ID:-alone}"
printf 'step 7' >"$E5JAX_PHASE_FILE"
[ -e "$0.fails" ] && exit 3
while :; do sleep 0.05; done
"""


@pytest.fixture
def program(tmp_path) -> Iterator[Path]:
    path = tmp_path / "python"
    path.write_text(PROGRAM)
    path.chmod(0o755)
    yield path
    forget(RUN)


def train(
    program: Path, *options: str, script: str = "train", config: str = "configs/quickstart.py"
) -> subprocess.Popen[str]:
    words = (
        f"--run-name={RUN}",
        f"--workdir={program.parent / 'run'}",
        f"--python={program}",
        "--platform=cpu",
    )
    command = [str(ROOT / f"launch/{script}.sh"), config, *words, *options]
    around = {**os.environ, "THREADS": "4", "XLA_FLAGS": ""}
    return subprocess.Popen(
        command,
        cwd=program.parent,
        env=around,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def ask(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(ROOT / "launch/train.sh"), *words],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def begun(files: Files) -> None:
    until(
        lambda: (
            files.phase(files.first).exists() and files.phase(files.first).read_text() == "step 7"
        ),
        lambda: "it does not begin",
        60,
    )


def test_one_process_takes_the_launchers_place_and_gets_its_signals(program):
    child = train(program, "--config.seed=1", "--allow-change")
    files = Files(program.parent / "run")
    begun(files)
    ((_, state),) = record.states(files.workdir)
    assert state.pid == child.pid  # the very process that the script was
    assert record.is_running(files)
    assert "is already running" in said(train(program), 3)
    child.send_signal(signal.SIGTERM)
    words = f"run --config=configs/quickstart.py --workdir={files.workdir} --config.seed=1 --allow-change"
    assert f"given: -m e5jax {words}\n" in said(child, 75)
    assert not record.is_running(files)


def test_in_the_background_it_is_asked_read_and_stopped_by_name(program):
    keys = program.parent / "keys"
    keys.write_text("# of the hub\nHF_TOKEN=hf_canary\n")
    keys.chmod(0o600)
    text = said(
        train(program, "--detach", "--num-processes=2", f"--key-file={keys}", "--env=THREADS=2"), 0
    )
    files = Files(program.parent / "run")
    begun(files)
    found = re.search(rf"{RUN} on \S+: pid (\d+), log ", text)
    assert found is not None, text
    assert os.getsid(int(found[1])) == int(
        found[1]
    )  # nothing that ends the shell's session ends this
    assert "already running" in said(train(program, "--detach"), 0)
    shown = ask("status", RUN)
    assert shown.returncode == 0
    assert re.search(
        rf"{RUN} on \S+: pid {found[1]}, .*\n  process 0: in phase step, step 7\n  process 1: in phase step, step 7",
        shown.stdout,
    )
    logs = ask("logs", RUN).stdout
    assert "==> process-1.log <==" in logs
    assert (
        "key: hf_canary, threads: 2, process 1" in logs
    )  # --env goes before what was set where it was launched
    noted = json.loads(files.environment.read_text())
    assert (noted["keys"], noted["environment"]["THREADS"], noted["platform"]) == (
        ["HF_TOKEN"],
        "2",
        "cpu",
    )
    assert "hf_canary" not in files.environment.read_text() + files.state.read_text()
    assert ask("stop", RUN).returncode == 0
    ((_, state),) = record.states(files.workdir)
    assert (state.end, state.attempts) == (75, ((75, 7),))
    assert "ended, exit code 75" in ask("status", RUN).stdout
    assert "nothing is running" in ask("stop", RUN).stderr


def test_what_says_no_in_the_background_is_found_in_status(program):
    (program.parent / "python.fails").touch()
    said(train(program, "--detach", "--max-restarts=5"), 0)
    files = Files(program.parent / "run")
    until(
        lambda: record.states(files.workdir)[0][1].end is not None,
        lambda: files.log(0).read_text(),
        60,
    )
    shown = ask("status", RUN)
    assert shown.returncode == 3
    assert "ended, exit code 3" in shown.stdout
    assert "the same command would fail again" in files.log(0).read_text()


def test_a_name_that_nobody_launched_is_said_with_those_that_were():
    done = ask("status", "no-such-run")
    assert done.returncode == 3
    assert re.fullmatch(r"e5jax: status no-such-run: name one run; .*launched.*\n", done.stderr)


@pytest.mark.parametrize(
    ("script", "subject", "options", "words"),
    [
        (
            "eval",
            "intfloat/e5",
            ["--tasks=A,B"],
            "eval --model=intfloat/e5 --output={run} --tasks=A,B",
        ),
        (
            "eval",
            "models/e5",
            [],
            "eval --model=models/e5 --benchmark=MTEB(eng, v1) --output={run}",
        ),
        (
            "synth",
            "configs/synth_e5.py",
            ["--config.examples=5"],
            "synth --config=configs/synth_e5.py --output={run} --config.examples=5",
        ),
    ],
)
def test_evaluation_and_generation_are_launched_alike(script, subject, options, words, program):
    child = train(program, *options, script=script, config=subject)
    files = Files(program.parent / "run")
    begun(files)
    child.send_signal(signal.SIGINT)
    child.send_signal(signal.SIGTERM)
    text, _ = child.communicate(timeout=60)
    assert f"given: -m e5jax {words.format(run=files.workdir)}\n" in text


def test_scripts_say_what_they_take_and_refuse_the_rest():
    for script in ("eval", "synth"):
        done = subprocess.run(
            [str(ROOT / f"launch/{script}.sh")], capture_output=True, text=True, check=False
        )
        assert done.returncode == 2
        assert f"usage: launch/{script}.sh" in done.stderr
    done = subprocess.run(
        [str(ROOT / "launch/train.sh"), "--tasks=A"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "unrecognized arguments: --tasks=A" in done.stderr
