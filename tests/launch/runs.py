"""Runs of the real trainer on the tiny model of tests/faults, started by the wrapper as a user would."""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

from launch.launcher.record import Files
from tests.faults.material import ROOT, in_another_process
from tests.faults.nursery import FLAGS

STEPS = 12
LONG = 240.0
ASKED = "E5JAX_LAUNCH"  # set for the long tests, which need tools of clusters and minutes


class Place(NamedTuple):
    """Folders of runs, and what all of them are run from."""

    folder: Path
    base: Path

    def command(self, run: str, *options: str, steps: int = STEPS) -> list[str]:
        """`launch/train.sh` on the tiny config; its own program is this interpreter."""
        return [
            *(
                str(ROOT / "launch/train.sh"),
                str(self.base / "config.py"),
                f"--run-name={run}",
                f"--workdir={self.folder / run}",
            ),
            *("--platform=cpu", "--devices=4", f"--python={sys.executable}"),
            *(f"--config.optim.steps={steps}", "--config.checkpoint.every=4", *options),
        ]

    @property
    def environment(self) -> dict[str, str]:
        """With a cache of programs: all of the devices are in one group, so that is safe."""
        cache = {
            "JAX_COMPILATION_CACHE_DIR": str(self.folder / "cache"),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        }
        return {**os.environ, **cache, "XLA_FLAGS": FLAGS}

    def start(self, run: str, *options: str, steps: int = STEPS) -> subprocess.Popen[str]:
        command = self.command(run, *options, steps=steps)
        return subprocess.Popen(
            command,
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def wrapper(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Something short of the wrapper: status, logs, stop."""
        command = [str(ROOT / "launch/train.sh"), *words]
        return subprocess.run(
            command, env=self.environment, capture_output=True, text=True, check=False, timeout=LONG
        )

    def digests(self, *runs: str) -> list[dict]:
        """What each run came to."""
        return [
            json.loads(line)
            for line in in_another_process(
                "digest", self.base, *(self.folder / run for run in runs)
            )
        ]


def said(child: subprocess.Popen[str], code: int) -> str:
    """All it has said, once it has ended with this code."""
    text, _ = child.communicate(timeout=LONG)
    assert child.returncode == code, text
    return text


def until(true, what, seconds: float = LONG) -> None:
    """Waits for something to become true; `what()` says what is instead."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, what()
        time.sleep(0.01)


def comes_to(workdir: Path, process: int, step: int) -> None:
    """Waits until that process has begun that step."""
    path = Files(workdir).phase(process)

    def there() -> bool:
        found = re.match(r"\w+ (\d+)", path.read_text()) if path.exists() else None
        return found is not None and int(found[1]) >= step

    until(there, lambda: f"process {process} of {workdir} does not come to step {step}")


def forget(prefix: str) -> None:
    """Removes what the wrapper remembers of runs."""
    for path in (ROOT / "runs" / "launched").glob(f"{prefix}*.json"):
        path.unlink()


def pid_of(workdir: Path, process: int) -> int:
    """The trainer that is this process of the run."""
    wanted = f"E5JAX_PHASE_FILE={Files(workdir).phase(process)}".encode()
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            try:
                if wanted in (folder / "environ").read_bytes().split(b"\0"):
                    return int(folder.name)
            except OSError:
                continue
    raise AssertionError(f"nobody is process {process} of {workdir}")
