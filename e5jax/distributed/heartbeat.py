"""What this process is doing, since when, and at which step: for whoever has to say why nothing happens.

A process is in one phase at a time, and so is this module. To enter one costs no more than an assignment; where a launcher wants
to know, it names a file, and each costs a write of one line to it, which outlives whatever ends the process.
"""

import os
import time
from pathlib import Path
from typing import NamedTuple

START, JOIN, READ, LOAD, COMPILE, WAIT = "start", "join", "read", "load", "compile", "wait"
BATCH, STEP, SAVE = "batch", "step", "save"
STAGES = ("data", "export", "eval")  # of a run, which one process works on


class Phase(NamedTuple):
    """`since` is on the clock of time.monotonic, `step` the last one begun."""

    name: str
    step: int
    since: float


FILE = "E5JAX_PHASE_FILE"  # names the file
_WIDTH = 64  # bytes of its one line


class _Own:
    now = Phase(START, 0, time.monotonic())
    told: int | None = None  # descriptor of the file


def enter(name: str, step: int | None = None) -> None:
    """From here on this process does that; the step stays what it was unless one is given."""
    _Own.now = Phase(name, _Own.now.step if step is None else step, time.monotonic())
    if _Own.told is not None:
        _write()


def now() -> Phase:
    """The phase that this process is in."""
    return _Own.now


def tell(path: Path) -> None:
    """From here on the file says which phase this is in, and at which step."""
    _Own.told = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
    _write()


def told(path: Path) -> tuple[str, int]:
    """Phase and step that a process has written there; no phase and step 0 if it has not come so far."""
    name, _, step = (
        path.read_text(encoding="utf-8").strip().partition(" ") if path.is_file() else ("", "", "")
    )
    return name, int(step or 0)


def _write() -> None:
    assert _Own.told is not None, "tell"
    os.pwrite(_Own.told, f"{_Own.now.name} {_Own.now.step}".ljust(_WIDTH - 1).encode() + b"\n", 0)
