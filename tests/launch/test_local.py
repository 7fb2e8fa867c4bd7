"""The wrapper itself: `launch/train.sh` starts, stops and resumes the real trainer, in two processes of four devices each."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from launch.launcher import record
from launch.launcher.record import Files
from tests.faults.material import ROOT, in_another_process
from tests.faults.nursery import FLAGS

STEPS = 12
LONG = 240.0


class Place(NamedTuple):
    """Folders of runs, and what all of them are run from."""

    folder: Path
    base: Path

    def start(self, run: str, *options: str) -> subprocess.Popen[str]:
        """`launch/train.sh` on the tiny config; its own program is this interpreter."""
        command = [
            *(str(ROOT / "launch/train.sh"), str(self.base / "config.py"), f"--run-name={run}", f"--workdir={self.folder / run}"),
            *("--platform=cpu", "--num-processes=2", "--devices=4", f"--python={sys.executable}"),
            *(f"--config.optim.steps={STEPS}", "--config.checkpoint.every=4", "--config.log.tensorboard=false", *options),
        ]
        cache = {"JAX_COMPILATION_CACHE_DIR": str(self.folder / "cache"), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
        around = {**os.environ, **cache, "XLA_FLAGS": FLAGS}
        return subprocess.Popen(command, cwd=self.folder, env=around, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def said(self, child: subprocess.Popen[str], code: int) -> str:
        """All it has said, once it has ended with this code."""
        text, _ = child.communicate(timeout=LONG)
        assert child.returncode == code, text
        return text

    def digests(self, *runs: str) -> list[dict]:
        return [json.loads(line) for line in in_another_process("digest", self.base, *(self.folder / run for run in runs))]


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("local")
    in_another_process("make", folder / "base")
    yield Place(folder, folder / "base")
    for path in (ROOT / "runs" / "launched").glob("test-local-*.json"):
        path.unlink()


def wait_for_step(workdir: Path, process: int, step: int) -> None:
    """Until that process has begun that step."""
    deadline = time.monotonic() + LONG
    path = Files(workdir).phase(process)
    while not (path.exists() and (found := re.match(r"step (\d+)", path.read_text())) and int(found[1]) >= step):
        assert time.monotonic() < deadline, "it does not come so far"
        time.sleep(0.005)


def test_sigterm_through_the_wrapper_saves_and_the_same_command_ends_with_the_same_bits(place):
    place.said(place.start("test-local-whole"), 0)
    told = place.folder / "test-local-told"
    child = place.start("test-local-told")
    wait_for_step(told, 1, 3)
    child.send_signal(signal.SIGTERM)
    place.said(child, 75)
    ((files, state),) = record.states(told)
    assert (state.end, len(state.attempts), record.lives(files)) == (75, 1, False)
    assert 3 <= max(int(path.parent.name) for path in told.glob("checkpoints/*/MANIFEST")) < STEPS

    # Nobody tells the wrapper now: one process is, all stop at one step, and the supervisor goes on.
    child = place.start("test-local-told", "--max-restarts=2")
    wait_for_step(told, 0, state.attempts[0][1] + 1)
    os.kill(pid_of(told, 1), signal.SIGTERM)
    text = place.said(child, 0)
    assert "restart 1 in 1 s" in text
    ((_, state),) = record.states(told)
    assert [code for code, _ in state.attempts] == [75, 0]
    whole, stopped = place.digests("test-local-whole", "test-local-told")
    assert whole["step"] == STEPS
    assert stopped == whole


def pid_of(workdir: Path, process: int) -> int:
    """The process that writes this file of phases."""
    wanted = f"E5JAX_PHASE_FILE={Files(workdir).phase(process)}".encode()
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            try:
                if wanted in (folder / "environ").read_bytes().split(b"\0"):
                    return int(folder.name)
            except OSError:
                continue
    raise AssertionError(f"nobody is process {process} of {workdir}")
