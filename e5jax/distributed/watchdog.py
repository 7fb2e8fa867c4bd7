"""Ends a run that hangs: whoever is late, or gives no sign any more, is named with its phase, and every process exits with 99.

JAX notices a process that is dead, not one that lives and does nothing: the others then wait in a collective for ever. So a thread
looks at how long this process has been in its phase; where there are several, each says once a second what it is doing, and
process 0 looks at all of them, the others at process 0.
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

from e5jax.distributed import coordination, heartbeat
from e5jax.distributed.process import ProcessInfo
from e5jax.errors import CODES, ERROR, WATCHDOG, ConfigError, StoppedError, report

SIGNS = "e5jax/sign/"
EVERY = 1.0  # seconds between two signs
GRACE = 3.0  # seconds that who sees only process 0 leaves to it, which sees all
LATER = 10  # seconds by which JAX, which aborts and names no phase, is slower than this; it counts from a heartbeat before the last
FIRST = (
    heartbeat.START,
    heartbeat.JOIN,
    heartbeat.READ,
    heartbeat.LOAD,
    heartbeat.COMPILE,
    heartbeat.WAIT,
)  # phases before the first step
OFTEN = (heartbeat.BATCH, heartbeat.STEP, heartbeat.SAVE)  # phases of a step, in their order
FOR_OTHERS = (
    heartbeat.JOIN,
    heartbeat.WAIT,
    heartbeat.STEP,
)  # phases that end when all processes have come to them


class Limits(NamedTuple):
    """Seconds: in a phase before the first step, in a phase of a step, in a save, and without a sign of another process."""

    start: float
    step: float
    save: float
    silence: float

    def of(self, name: str) -> float:
        """Of a phase; stages that one process works on take as long as they take."""
        if name in FIRST:
            return self.start
        return {
            heartbeat.BATCH: self.step,
            heartbeat.STEP: self.step,
            heartbeat.SAVE: self.save,
        }.get(name, math.inf)


class Sign(NamedTuple):
    """What a process says of itself: a number that grows, its phase, for how many seconds, and who it is."""

    number: int
    phase: str
    step: int
    seconds: float
    who: str

    def __str__(self) -> str:
        return f"in phase {self.phase!r}{f' of step {self.step}' if self.phase in OFTEN else ''} for {self.seconds:.0f} s"


class Seen(NamedTuple):
    """The last sign of a process, if there was one, and when it came, on the clock of time.monotonic."""

    sign: Sign | None
    at: float


def find_stall(
    here: ProcessInfo, own: Sign, seen: Mapping[int, Seen], limits: Limits, now: float
) -> str | None:
    """Who is to blame for what, if the run is to be ended. `seen` are the others that this process looks at."""
    for process, (sign, at) in seen.items():
        if now - at > limits.silence:
            last = f"when last seen it was {sign}" if sign else "it was never seen"
            return f"{_name(process, sign)} gives no sign of itself for {now - at:.0f} s: it is gone, or stopped; {last}"
    limit = limits.of(own.phase)
    if own.seconds <= limit + (GRACE if here.process and own.phase in FOR_OTHERS else 0):
        return None
    signs = {here.process: own} | {process: sign for process, (sign, _) in seen.items() if sign}
    last = max(_progress(sign) for sign in signs.values())
    late = {process: sign for process, sign in signs.items() if _progress(sign) < last}
    if own.phase not in FOR_OTHERS:
        late = {here.process: own}
    if late:
        return "; ".join(
            f"{_name(process, sign)} is late: {sign}, and {limit:.0f} s are allowed"
            for process, sign in late.items()
        )
    others = "; no process is behind another" if seen else ""
    return f"{_name(here.process, own)} is {own}, and {limit:.0f} s are allowed{others}"


def _name(process: int, sign: Sign | None) -> str:
    return f"process {process}{f' ({sign.who})' if sign else ''}"


def _progress(sign: Sign) -> tuple[int, int]:
    order = (*FIRST, *OFTEN)
    return sign.step, order.index(sign.phase) if sign.phase in order else len(order)


class Watchdog:
    """Watches over this process from entering to leaving, and with the others where there are several: it joins them on entering.

    With an error inside, all processes exit with its code, those that know nothing of it included.
    """

    def __init__(self, where: ProcessInfo, limits: Limits):
        self._where, self._limits = where, limits
        self._who = f"{socket.gethostname()}, pid {os.getpid()}"
        self._seen: dict[int, Seen] = {}
        self._number = 0
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._watch, name="watchdog", daemon=True)]

    def __enter__(self) -> Self:
        self._threads[0].start()
        if self._where.processes > 1:
            heartbeat.enter(heartbeat.JOIN)
            coordination.join(
                self._where, int(self._limits.start) + LATER, 2 * int(self._limits.silence) + LATER
            )
            watched = range(1, self._where.processes) if self._where.process == 0 else [0]
            self._seen = {process: Seen(None, time.monotonic()) for process in watched}
            self._threads.append(threading.Thread(target=self._exchange, name="signs", daemon=True))
            self._threads[1].start()
            heartbeat.enter(heartbeat.START)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        several = self._where.processes > 1
        if several and error is not None:
            self._fail(error)
        if several:
            heartbeat.enter(heartbeat.WAIT)
            coordination.meet("end")
        self._over.set()
        for thread in self._threads:
            thread.join()
        if several:
            coordination.part()

    def _fail(self, error: BaseException) -> NoReturn:
        """Ends all processes with what ended this one."""
        if not isinstance(error, ConfigError | StoppedError):
            self._doubt()
        if isinstance(error, tuple(CODES)):
            coordination.leave(report(error), str(error))
        traceback.print_exception(error)
        coordination.leave(ERROR, f"{type(error).__name__}: {error}")

    def _doubt(self) -> None:
        """Returns when all others have given a sign: the error is this process's own. Otherwise `find_stall` ends it meanwhile.

        What fails first when another process dies is a collective or a save of those that live.
        """
        before, deadline = (
            coordination.below(SIGNS),
            time.monotonic() + self._limits.silence + LATER,
        )
        while time.monotonic() < deadline:
            after = coordination.below(SIGNS)
            if len(after) == self._where.processes and not after.items() & before.items():
                return
            time.sleep(EVERY / 4)

    # --- threads ---------------------------------------------------------------------------------------------------

    def _watch(self) -> None:
        while not self._over.wait(EVERY / 2):
            blamed = find_stall(
                self._where, self._sign(), dict(self._seen), self._limits, time.monotonic()
            )
            if blamed and not self._over.is_set():
                why = f"watchdog: {blamed}; the same command goes on from the last checkpoint"
                print(f"e5jax: {why}", file=sys.stderr, flush=True)
                faulthandler.dump_traceback(all_threads=True)
                coordination.leave(WATCHDOG, why)

    def _exchange(self) -> None:
        mine = f"{SIGNS}{self._where.process}"
        while (
            not self._over.is_set()
        ):  # at once, too: whoever is stopped in its first second has then been seen
            try:
                coordination.put(mine, json.dumps(self._sign()), over=True)
                there = (
                    coordination.below(SIGNS)
                    if self._where.process == 0
                    else {f"{SIGNS}0": coordination.get(f"{SIGNS}0")}
                )
            except JaxRuntimeError:
                there = {}  # the service is gone, or does not answer: nothing is seen, and that is a sign, too
            for process, (sign, _) in list(self._seen.items()):
                text = there.get(f"{SIGNS}{process}")
                if text and (new := Sign(*json.loads(text))).number != (sign.number if sign else 0):
                    self._seen[process] = Seen(new, time.monotonic())
            self._over.wait(EVERY)

    def _sign(self) -> Sign:
        self._number += 1
        here = heartbeat.now()
        return Sign(self._number, here.name, here.step, time.monotonic() - here.since, self._who)
