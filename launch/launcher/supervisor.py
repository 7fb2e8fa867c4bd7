"""Keeps the processes of a run going: starts them again when they were stopped or broke, and not when they said no."""

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import NamedTuple, Self

from e5jax.errors import DONE, STOPPED, WATCHDOG

KILLED, TERMINATED, ABORTED = 128 + signal.SIGKILL, 128 + signal.SIGTERM, 128 + signal.SIGABRT
CRASHES = (WATCHDOG, ABORTED, KILLED, TERMINATED)
AGAIN = (
    STOPPED,
    *CRASHES,
)  # exit codes after which the same command goes on; after any other one it would come to the same
EVERY = 0.1  # seconds between two looks at the processes
KILLING = 30.0  # seconds between SIGTERM and SIGKILL for a process that the others have left behind
PR_SET_PDEATHSIG = 1  # <linux/prctl.h>


class Policy(NamedTuple):
    """How often and how patiently; times in seconds."""

    restarts: int
    first: float = 1.0  # wait before the first restart; each one without progress doubles it
    most: float = 60.0
    patience: float = 180.0  # that the others may take to end by themselves when one has ended
    grace: float = 1_200.0  # that a run which is told to stop may take to save
    number: int = signal.SIGTERM  # the signal that tells a process to stop
    again: tuple[int, ...] = AGAIN  # exit codes after which to start again


class Attempt(NamedTuple):
    """How the processes ended, and the last step that one of them had begun."""

    code: int
    step: int


class Verdict(NamedTuple):
    """Whether to start again, after how many seconds, and why."""

    again: bool
    seconds: float
    why: str


def judge(attempts: Sequence[Attempt], policy: Policy) -> Verdict:
    """What to do after the last of these attempts, none of which was told to stop."""
    last, restarts = attempts[-1], len(attempts) - 1
    if last.code == DONE:
        return Verdict(False, 0.0, "done")
    if last.code not in policy.again:
        why = "saved" if last.code == STOPPED else "the same command would come to the same"
        return Verdict(False, 0.0, f"exit code {last.code}: {why}")
    if looped(attempts):
        return Verdict(
            False,
            0.0,
            f"exit code {last.code} at step {last.step}, twice in a row: a restart would come there again",
        )
    if restarts >= policy.restarts:
        return Verdict(
            False,
            0.0,
            f"exit code {last.code} at step {last.step}, and there were {restarts} restarts (--max-restarts)",
        )
    seconds = min(policy.most, policy.first * 2 ** _idle(attempts))
    return Verdict(
        True,
        seconds,
        f"exit code {last.code} at step {last.step}: restart {restarts + 1} in {seconds:g} s",
    )


def looped(attempts: Sequence[Attempt]) -> bool:
    """Whether the last two broke at the same step; one may have had the next one begun, as steps are started ahead."""
    if len(attempts) < 2:
        return False
    before, last = attempts[-2:]
    return {before.code, last.code} <= set(CRASHES) and abs(last.step - before.step) <= 1


def _idle(attempts: Sequence[Attempt]) -> int:
    """How many of the last attempts came no further than the one before."""
    found = 0
    for before, after in zip(reversed(attempts[:-1]), reversed(attempts), strict=False):
        if after.step > before.step + 1:
            break
        found += 1
    return found


class Told:
    """Whether somebody has told this process to stop: SIGTERM, SIGINT, SIGHUP or SIGUSR1. Use with `with`, in the main thread.

    Started with nohup, it ignores SIGHUP. Whatever is in `children` is told at once, and whoever starts later, too.
    """

    SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)

    def __init__(self, number: int = signal.SIGTERM):
        self.children: list[subprocess.Popen[bytes]] = []
        self.signal: int | None = None
        self.at = 0.0
        self._number = number

    def __enter__(self) -> Self:
        nohup = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
        heeded = [number for number in self.SIGNALS if number != signal.SIGHUP or not nohup]
        self._before = {number: signal.signal(number, self._receive) for number in heeded}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _receive(self, number: int, _: FrameType | None) -> None:
        if self.signal is None:
            self.signal, self.at = number, time.monotonic()
        for child in self.children:
            child.send_signal(self._number)

    def sleep(self, seconds: float) -> None:
        """Sleeps so long, or until somebody tells."""
        deadline = time.monotonic() + seconds
        while self.signal is None and (left := deadline - time.monotonic()) > 0:
            time.sleep(min(left, EVERY))


def supervise(
    start: Callable[[Callable[[subprocess.Popen[bytes]], None]], None],
    step: Callable[[], int],
    policy: Policy,
    note: Callable[[Sequence[Attempt]], None] = lambda _: None,
    tick: Callable[[], None] = lambda: None,
) -> tuple[int, int | None]:
    """Runs processes to their end. Returns the exit code, and the signal of whoever told it to stop.

    `start` starts them all and hands each to the function that it is given; `step` says how far they came, `note` is told of
    every attempt, and `tick` is called ten times a second.
    """
    attempts: list[Attempt] = []
    with Told(policy.number) as told:
        while True:
            told.children.clear()
            start(lambda child: _adopt(child, told, policy))
            code = _wait(told, policy, tick)
            attempts.append(Attempt(code, step()))
            note(attempts)
            if told.signal is not None:
                return code, told.signal
            verdict = judge(attempts, policy)
            if not verdict.again:
                if code != DONE:
                    say(f"stops: {verdict.why}")
                return code, None
            say(verdict.why)
            told.sleep(verdict.seconds)
            if told.signal is not None:
                return STOPPED, told.signal


def _adopt(child: subprocess.Popen[bytes], told: Told, policy: Policy) -> None:
    told.children.append(child)
    if told.signal is not None:
        child.send_signal(policy.number)


def _wait(told: Told, policy: Policy, tick: Callable[[], None]) -> int:
    """The exit code of all processes together; whoever does not end in time is made to."""
    ended: dict[int, int] = {}
    first: float | None = None
    while True:
        for child in told.children:
            if child.pid not in ended and child.poll() is not None:
                ended[child.pid] = (
                    child.returncode if child.returncode >= 0 else 128 - child.returncode
                )
                first = first or time.monotonic()
        tick()
        if len(ended) == len(told.children):
            return together(list(ended.values()))
        now = time.monotonic()
        late = [child for child in told.children if child.pid not in ended]
        if first is not None and now > first + policy.patience:
            _end(late, policy.number)
        elif told.signal is not None and now > told.at + policy.grace:
            _end(late, signal.SIGKILL)
        time.sleep(EVERY)


def _end(late: Sequence[subprocess.Popen[bytes]], number: int) -> None:
    for child in late:
        say(f"pid {child.pid} does not end: {signal.Signals(number).name}")
        child.send_signal(number)
    deadline = time.monotonic() + KILLING
    while any(child.poll() is None for child in late) and time.monotonic() < deadline:
        time.sleep(EVERY)
    for child in late:
        if child.poll() is None:
            child.kill()
            child.wait()


def together(codes: Sequence[int]) -> int:
    """One exit code for processes that ended in this order: one that forbids a restart, else the first that is not 0."""
    wrong = [code for code in codes if code != DONE]
    return next((code for code in wrong if code not in AGAIN), wrong[0] if wrong else DONE)


def spawn(
    argv: Sequence[str], environment: Mapping[str, str], log: Path | None
) -> subprocess.Popen[bytes]:
    """Starts a process that dies with this one. What it says goes to the end of `log`, or where this process's words go.

    It is in a session of its own: Ctrl-C reaches this process alone, and the other one through it, once.
    """
    output = None if log is None else os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        return subprocess.Popen(
            argv,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            preexec_fn=_die_with_parent if sys.platform == "linux" else None,  # noqa: PLW1509  there is one thread
        )
    finally:
        if output is not None:
            os.close(output)


def _die_with_parent() -> None:
    """A trainer whose supervisor was killed would go on unseen, and a second one beside it."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def say(words: str) -> None:
    """A line of the launcher's own."""
    print(f"launch: {words}", file=sys.stderr, flush=True)
