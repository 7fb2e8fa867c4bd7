"""The phase of this process: what it is doing, since when, and at which step.

The watchdog reads it to explain why a run makes no progress. Entering a phase is one assignment.
If a launcher asks for a file (`FILE`), each phase is also written there as one line, which outlives
the process however it ends.
"""

import os
import time
from pathlib import Path
from typing import NamedTuple

START, JOIN, READ, LOAD, COMPILE, WAIT = "start", "join", "read", "load", "compile", "wait"
BATCH, STEP, SAVE = "batch", "step", "save"
STAGES = ("data", "export", "eval")  # stages of a run that a single process works on
FILE = "E5JAX_PHASE_FILE"  # environment variable that names the file
_WIDTH = 64  # bytes of the file's only line


class Phase(NamedTuple):
    """`since` is in seconds of `time.monotonic`; `step` is the last step that was begun."""

    name: str
    step: int
    since: float


class Heartbeat:
    """The current `phase`, written to the file `path` if there is one."""

    def __init__(self, path: str | None = None):
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600) if path else None
        self.phase = Phase("", 0, 0.0)
        self.enter(START)

    def enter(self, name: str, step: int | None = None) -> None:
        """Begins a phase. The step stays the same unless one is given."""
        step = self.phase.step if step is None else step
        self.phase = Phase(name, step, time.monotonic())
        if self._file is not None:
            os.pwrite(self._file, f"{name} {step}".ljust(_WIDTH - 1).encode() + b"\n", 0)


def read(path: Path) -> tuple[str, int]:
    """Reads the phase and step that a process has written: ("", 0) if there is no file yet."""
    text = path.read_text(encoding="utf-8").strip() if path.is_file() else ""
    name, _, step = text.partition(" ")
    return name, int(step or 0)
