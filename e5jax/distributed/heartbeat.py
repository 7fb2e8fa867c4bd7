"""The phase of this process: what it is doing, since when, and at which step.

The watchdog reads it to explain why a run makes no progress. Entering a phase is one assignment.
If a launcher asks for a file (`write_to`), each phase is also written there as one line, which
outlives the process however it ends.
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


class _Own:
    current = Phase(START, 0, time.monotonic())
    descriptor: int | None = None  # of the file


def enter(name: str, step: int | None = None) -> None:
    """Begins a phase. The step stays the same unless one is given."""
    step = _Own.current.step if step is None else step
    _Own.current = Phase(name, step, time.monotonic())
    if _Own.descriptor is not None:
        _write()


def now() -> Phase:
    """Returns the current phase."""
    return _Own.current


def write_to(path: Path) -> None:
    """From now on writes each phase and step to this file."""
    _Own.descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
    _write()


def read(path: Path) -> tuple[str, int]:
    """Reads the phase and step that a process has written: ("", 0) if there is no file yet."""
    text = path.read_text(encoding="utf-8").strip() if path.is_file() else ""
    name, _, step = text.partition(" ")
    return name, int(step or 0)


def _write() -> None:
    assert _Own.descriptor is not None, "write_to"
    line = f"{_Own.current.name} {_Own.current.step}".ljust(_WIDTH - 1) + "\n"
    os.pwrite(_Own.descriptor, line.encode(), 0)
