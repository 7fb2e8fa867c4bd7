"""What this process is doing, since when, and at which step: for whoever has to say why nothing happens.

A process is in one phase at a time, and so is this module. To enter one costs no more than an assignment.
"""

import time
from typing import NamedTuple

START, JOIN, READ, LOAD, COMPILE, WAIT = "start", "join", "read", "load", "compile", "wait"
BATCH, STEP, SAVE = "batch", "step", "save"
STAGES = ("data", "export", "eval")  # of a run, which one process works on


class Phase(NamedTuple):
    """`since` is on the clock of time.monotonic, `step` the last one begun."""

    name: str
    step: int
    since: float


class _Own:
    now = Phase(START, 0, time.monotonic())


def enter(name: str, step: int | None = None) -> None:
    """From here on this process does that; the step stays what it was unless one is given."""
    _Own.now = Phase(name, _Own.now.step if step is None else step, time.monotonic())


def now() -> Phase:
    """The phase that this process is in."""
    return _Own.now
