"""Ends a run that hangs: names the process that is late or silent, and its phase. All exit with 99.

JAX notices a process that is dead, but not one that is alive and makes no progress: the others
then wait in a collective forever. So a thread checks how long this process has been in its phase.
In a run of several processes, each publishes its status once a second; process 0 checks all of
them, and the others check process 0.
"""

import faulthandler
import json
import math
import os
import socket
import sys
import threading
import time
import traceback
from collections.abc import Mapping
from types import TracebackType
from typing import NamedTuple, NoReturn, Self

from jax.errors import JaxRuntimeError

from e5jax.distributed import coordination
from e5jax.distributed.coordination import Process
from e5jax.distributed.heartbeat import BATCH, COMPILE, JOIN, LOAD, READ, SAVE, START, STEP, WAIT
from e5jax.distributed.process import ProcessInfo
from e5jax.errors import CODES, ERROR, WATCHDOG, ConfigError, StoppedError, report

STATUS = "e5jax/status/"
EVERY = 1.0  # seconds between two status messages
GRACE = 3.0  # seconds that other processes leave to process 0, which sees all of them
# Seconds by which JAX's own timeout, which names no phase, is later than this watchdog. JAX counts
# from the heartbeat before the last.
LATER = 10
FIRST = (START, JOIN, READ, LOAD, COMPILE, WAIT)  # phases before the first step
OFTEN = (BATCH, STEP, SAVE)  # phases of a step, in their order
FOR_OTHERS = (JOIN, WAIT, STEP)  # phases that end only when all processes have reached them


class Limits(NamedTuple):
    """Time limits in seconds: a phase before the first step, a phase of a step, a save, silence."""

    start: float
    step: float
    save: float
    silence: float

    def of(self, phase: str) -> float:
        """Returns the limit of a phase; stages that a single process works on have none."""
        if phase in FIRST:
            return self.start
        return {BATCH: self.step, STEP: self.step, SAVE: self.save}.get(phase, math.inf)


class Status(NamedTuple):
    """What a process publishes: a counter, its phase and step, seconds in that phase, its name."""

    number: int
    phase: str
    step: int
    seconds: float
    who: str

    def __str__(self) -> str:
        step = f" of step {self.step}" if self.phase in OFTEN else ""
        return f"in phase {self.phase!r}{step} for {self.seconds:.0f} s"


class Seen(NamedTuple):
    """The last status of a process, if any, and when it arrived (seconds of `time.monotonic`)."""

    status: Status | None
    at: float


def find_stall(
    here: ProcessInfo, own: Status, seen: Mapping[int, Seen], limits: Limits, now: float
) -> str | None:
    """Returns who is late or silent if the run must end, else None.

    `seen` holds the processes that this one watches.
    """
    for process, (status, at) in seen.items():
        if now - at > limits.silence:
            last = f"when last seen it was {status}" if status else "it was never seen"
            return (
                f"{_name(process, status)} gives no sign of itself for {now - at:.0f} s: "
                f"it is gone, or stopped; {last}"
            )
    limit = limits.of(own.phase)
    if own.seconds <= limit + (GRACE if here.process and own.phase in FOR_OTHERS else 0):
        return None
    statuses = {here.process: own}
    statuses |= {process: status for process, (status, _) in seen.items() if status}
    latest = max(_progress(status) for status in statuses.values())
    late = {process: status for process, status in statuses.items() if _progress(status) < latest}
    if own.phase not in FOR_OTHERS:
        late = {here.process: own}
    if late:
        return "; ".join(
            f"{_name(process, status)} is late: {status}, and {limit:.0f} s are allowed"
            for process, status in late.items()
        )
    others = "; no process is behind another" if seen else ""
    return f"{_name(here.process, own)} is {own}, and {limit:.0f} s are allowed{others}"


def _name(process: int, status: Status | None) -> str:
    return f"process {process}{f' ({status.who})' if status else ''}"


def _progress(status: Status) -> tuple[int, int]:
    order = (*FIRST, *OFTEN)
    return status.step, order.index(status.phase) if status.phase in order else len(order)


class Watchdog:
    """Watches `process` inside a `with` block; joins the other processes on entering, if any.

    If the block raises, all processes exit with the code of that error.
    """

    def __init__(self, process: Process, limits: Limits):
        self._process, self._info, self._limits = process, process.info, limits
        self._who = f"{socket.gethostname()}, pid {os.getpid()}"
        self._seen: dict[int, Seen] = {}
        self._number = 0
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._watch, name="watchdog", daemon=True)]

    def __enter__(self) -> Self:
        self._threads[0].start()
        if self._info.processes > 1:
            self._process.heartbeat.enter(JOIN)
            start, silence = int(self._limits.start), int(self._limits.silence)
            self._process.join(start + LATER, 2 * silence + LATER)
            others = range(1, self._info.processes) if self._info.process == 0 else [0]
            self._seen = {process: Seen(None, time.monotonic()) for process in others}
            exchange = threading.Thread(target=self._exchange, name="status", daemon=True)
            self._threads.append(exchange)
            exchange.start()
            self._process.heartbeat.enter(START)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        several = self._info.processes > 1
        if several and error is not None:
            self._fail(error)
        if several:
            self._process.heartbeat.enter(WAIT)
            self._process.meet("end")
        self._over.set()
        for thread in self._threads:
            thread.join()
        if several:
            self._process.shut_down()

    def _fail(self, error: BaseException) -> NoReturn:
        """Ends all processes with the error of this one."""
        if not isinstance(error, ConfigError | StoppedError):
            self._wait_for_others()
        if isinstance(error, tuple(CODES)):
            self._process.leave(report(error), str(error))
        traceback.print_exception(error)
        self._process.leave(ERROR, f"{type(error).__name__}: {error}")

    def _wait_for_others(self) -> None:
        """Returns once all others have published a new status: the error is this process's own.

        When a process dies, a collective or a save of the living ones fails first. In that case
        `find_stall` ends the run meanwhile and names the dead one.
        """
        before = coordination.below(STATUS)
        deadline = time.monotonic() + self._limits.silence + LATER
        while time.monotonic() < deadline:
            after = coordination.below(STATUS)
            if len(after) == self._info.processes and not after.items() & before.items():
                return
            time.sleep(EVERY / 4)

    # --- threads ---------------------------------------------------------------------------------

    def _watch(self) -> None:
        while not self._over.wait(EVERY / 2):
            seen, now = dict(self._seen), time.monotonic()
            stall = find_stall(self._info, self._status(), seen, self._limits, now)
            if stall and not self._over.is_set():
                why = f"watchdog: {stall}; the same command resumes from the last checkpoint"
                print(f"e5jax: {why}", file=sys.stderr, flush=True)
                faulthandler.dump_traceback(all_threads=True)
                self._process.leave(WATCHDOG, why)

    def _exchange(self) -> None:
        own = f"{STATUS}{self._info.process}"
        # Publishes at once: then even a process that is stopped in its first second has been seen.
        while not self._over.is_set():
            try:
                coordination.put(own, json.dumps(self._status()), over=True)
                below, zero = coordination.below, f"{STATUS}0"
                texts = {zero: coordination.get(zero)} if self._info.process else below(STATUS)
            except JaxRuntimeError:
                texts = {}  # the service does not answer, so nobody is seen
            for process, (status, _) in list(self._seen.items()):
                text = texts.get(f"{STATUS}{process}")
                number = status.number if status else 0
                if text and (new := Status(*json.loads(text))).number != number:
                    self._seen[process] = Seen(new, time.monotonic())
            self._over.wait(EVERY)

    def _status(self) -> Status:
        self._number += 1
        phase = self._process.heartbeat.phase
        seconds = time.monotonic() - phase.since
        return Status(self._number, phase.name, phase.step, seconds, self._who)
