"""Which process is late or silent, and a real process that hangs."""

import re
import subprocess
import sys

import pytest

from e5jax.distributed.process import ProcessInfo
from e5jax.distributed.watchdog import Limits, Seen, Status, find_stall
from tests.config.test_load import ROOT

LIMITS = Limits(start=100, step=10, save=40, silence=30)
NOW = 1_000.0


def status(phase: str, step: int = 7, seconds: float = 0.0) -> Status:
    return Status(1, phase, step, seconds, "host, pid 5")


def seen(*statuses: Status | None, ago: float = 1.0) -> dict[int, Seen]:
    """What process 0 sees of processes 1, 2, …."""
    return {process: Seen(one, NOW - ago) for process, one in enumerate(statuses, 1)}


def stall(own: Status, others: dict[int, Seen], process: int = 0) -> str | None:
    return find_stall(ProcessInfo(process, len(others) + 1, "here:1"), own, others, LIMITS, NOW)


@pytest.mark.parametrize(
    ("own", "others"),
    [
        (status("step", 8, 9), seen(status("batch", 7, 9))),
        (status("load", 0, 99), seen(status("compile", 0, 99))),
        (status("save", 7, 39), seen(status("save", 7, 39))),
        (status("eval", 7, 1e6), seen(status("eval", 7, 1e6))),
        (status("step", 7, 1), seen(status("step", 7, 1), ago=29)),
        (status("step", 7, 1), seen(None, ago=29)),
        (status("batch", 7, 9), {}),
    ],
)
def test_a_process_within_the_limits_is_no_stall(own, others):
    assert stall(own, others) is None


@pytest.mark.parametrize(
    ("own", "others", "blamed"),
    [
        # Process 1 sleeps while it makes a batch: the others wait for it in the next step.
        (
            status("step", 8, 11),
            seen(status("batch", 7, 12), status("step", 8, 11)),
            "process 1 is late: in phase 'batch'",
        ),
        (
            status("step", 8, 11),
            seen(status("step", 7, 12)),
            "process 1 is late: in phase 'step' of step 7 for 12 s",
        ),
        (
            status("wait", 0, 101),
            seen(status("wait", 0, 50), status("compile", 0, 99)),
            "process 2 is late: in phase 'compile'",
        ),
        (
            status("wait", 0, 101),
            seen(status("load", 0, 99)),
            "process 1 is late: in phase 'load' for 99 s",
        ),
        # What waits for nobody has itself to blame, however far the others are.
        (
            status("batch", 7, 11),
            seen(status("step", 8, 5)),
            "process 0 is late: in phase 'batch' of step 7",
        ),
        (
            status("save", 7, 41),
            seen(status("step", 8, 5)),
            "process 0 is late: in phase 'save' of step 7 for 41 s, and 40 s",
        ),
        (
            status("step", 7, 11),
            seen(status("step", 7, 11)),
            "10 s are allowed; no process is behind another",
        ),
        (
            status("step", 7, 11),
            {},
            "process 0 is in phase 'step' of step 7 for 11 s, and 10 s are allowed",
        ),
        (
            status("step", 7, 1),
            seen(status("load", 0, 1), ago=31),
            "process 1 gives no sign of itself for 31 s: it is gone, or stopped; "
            "when last seen it was in phase 'load' for 1 s",
        ),
        (
            status("eval", 7, 1),
            seen(None, ago=31),
            "process 1 gives no sign of itself for 31 s: it is gone, or stopped; it was never seen",
        ),
    ],
)
def test_the_late_or_silent_process_is_named_with_its_phase(own, others, blamed):
    found = stall(own, others)
    assert found is not None
    assert blamed in found.replace(" (host, pid 5)", "")


def test_other_processes_leave_the_decision_to_process_0_for_a_while():
    others = {0: Seen(status("step", 8, 11), NOW)}
    assert stall(status("step", 8, 12), others, process=1) is None
    assert stall(status("step", 8, 14), others, process=1) is not None
    # It knows that it is late itself.
    assert stall(status("batch", 8, 12), others, process=1) is not None


HANGING = """
import time
from e5jax.distributed.coordination import Process
from e5jax.distributed.watchdog import Limits, Watchdog
def hang():
    time.sleep(60)
process = Process()
with Watchdog(process, Limits(60, 1, 60, 60)):
    process.heartbeat.enter("batch", 12)
    hang()
"""


def test_a_process_that_hangs_says_where_and_exits_99():
    done = subprocess.run(
        [sys.executable, "-c", HANGING],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 99
    assert "e5jax: watchdog: process 0 (" in done.stderr
    late = r"is late: in phase 'batch' of step 12 for \d+ s, and 1 s are allowed"
    assert re.search(late, done.stderr)
    assert ", line 6 in hang\n" in done.stderr  # the stack of the thread that hangs
