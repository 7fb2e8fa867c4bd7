"""Supervises the processes of a run: restarts them after a stop or crash, not after an error."""

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
# Exit codes after which the same command resumes; after any other code it would fail again.
RETRIED = (STOPPED, *CRASHES)
POLL_INTERVAL = 0.1  # seconds
KILL_DELAY = 30.0  # seconds between SIGTERM and SIGKILL for a process whose peers have ended
PR_SET_PDEATHSIG = 1  # <linux/prctl.h>


class Policy(NamedTuple):
    """Number of restarts and time limits in seconds."""

    restarts: int
    first: float = 1.0  # wait before the first restart; each one without progress doubles it
    most: float = 60.0  # longest wait before a restart
    patience: float = 180.0  # for the other processes to end once one has ended
    grace: float = 1_200.0  # for a run to save after it is told to stop
    number: int = signal.SIGTERM  # the signal that tells a process to stop
    retried: tuple[int, ...] = RETRIED  # exit codes after which to restart


class Attempt(NamedTuple):
    """Exit code of all processes together, and the last step that any of them had started."""

    code: int
    step: int


class Decision(NamedTuple):
    """Whether to restart, after how many seconds, and why."""

    restart: bool
    seconds: float
    reason: str


def decide(attempts: Sequence[Attempt], policy: Policy) -> Decision:
    """What to do after these attempts, if nobody has told the run to stop."""
    last, restarts = attempts[-1], len(attempts) - 1
    exit_code, where = f"exit code {last.code}", f"at step {last.step}"
    if last.code == DONE:
        return Decision(False, 0.0, "done")
    if last.code not in policy.retried:
        reason = "saved" if last.code == STOPPED else "the same command would fail again"
        return Decision(False, 0.0, f"{exit_code}: {reason}")
    if is_crash_loop(attempts):
        reason = "twice in a row: a restart would crash there again"
        return Decision(False, 0.0, f"{exit_code} {where}, {reason}")
    if restarts >= policy.restarts:
        reason = f"after {restarts} restarts (--max-restarts)"
        return Decision(False, 0.0, f"{exit_code} {where}, {reason}")
    seconds = min(policy.most, policy.first * 2 ** _without_progress(attempts))
    restart = f"restart {restarts + 1} in {seconds:g} s"
    return Decision(True, seconds, f"{exit_code} {where}: {restart}")


def is_crash_loop(attempts: Sequence[Attempt]) -> bool:
    """Whether the last two attempts crashed at the same step, or one apart, as steps overlap."""
    if len(attempts) < 2:
        return False
    before, last = attempts[-2:]
    return {before.code, last.code} <= set(CRASHES) and abs(last.step - before.step) <= 1


def _without_progress(attempts: Sequence[Attempt]) -> int:
    """Number of latest attempts that got no further than the one before."""
    count = 0
    for before, after in zip(reversed(attempts[:-1]), reversed(attempts), strict=False):
        if after.step > before.step + 1:
            break
        count += 1
    return count


class StopSignals:
    """Records SIGTERM, SIGINT, SIGHUP or SIGUSR1 and forwards a stop signal to `children`.

    A context manager for the main thread. Under nohup it ignores SIGHUP.
    """

    SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)

    def __init__(self, number: int = signal.SIGTERM):
        self.children: list[subprocess.Popen[bytes]] = []
        self.signal: int | None = None
        self.at = 0.0
        self._number = number

    def __enter__(self) -> Self:
        nohup = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
        numbers = [number for number in self.SIGNALS if number != signal.SIGHUP or not nohup]
        self._before = {number: signal.signal(number, self._receive) for number in numbers}
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
        """Sleeps, but only until a signal arrives."""
        deadline = time.monotonic() + seconds
        while self.signal is None and (left := deadline - time.monotonic()) > 0:
            time.sleep(min(left, POLL_INTERVAL))


def supervise(
    start: Callable[[Callable[[subprocess.Popen[bytes]], None]], None],
    last_step: Callable[[], int],
    policy: Policy,
    record_attempts: Callable[[Sequence[Attempt]], None] = lambda _: None,
    tick: Callable[[], None] = lambda: None,
) -> tuple[int, int | None]:
    """Runs processes to their end and restarts them as `policy` says.

    Args:
        start: starts all processes and passes each to its argument.
        last_step: returns the last step that any process has started.
        policy: restarts and time limits.
        record_attempts: receives all attempts after each one.
        tick: called ten times a second.

    Returns:
        (the exit code, the signal that stopped the run or None).

    """
    attempts: list[Attempt] = []
    with StopSignals(policy.number) as stop:
        while True:
            stop.children.clear()
            start(lambda child: _adopt(child, stop, policy))
            code = _wait(stop, policy, tick)
            attempts.append(Attempt(code, last_step()))
            record_attempts(attempts)
            if stop.signal is not None:
                return code, stop.signal
            decision = decide(attempts, policy)
            if not decision.restart:
                if code != DONE:
                    say(f"stops: {decision.reason}")
                return code, None
            say(decision.reason)
            stop.sleep(decision.seconds)
            if stop.signal is not None:
                return STOPPED, stop.signal


def _adopt(child: subprocess.Popen[bytes], stop: StopSignals, policy: Policy) -> None:
    stop.children.append(child)
    if stop.signal is not None:
        child.send_signal(policy.number)


def _wait(stop: StopSignals, policy: Policy, tick: Callable[[], None]) -> int:
    """Waits for all processes, ends those that are late, and returns their common exit code."""
    ended: dict[int, int] = {}
    first: float | None = None
    while True:
        for child in stop.children:
            if child.pid not in ended and child.poll() is not None:
                ended[child.pid] = (
                    child.returncode if child.returncode >= 0 else 128 - child.returncode
                )
                first = first or time.monotonic()
        tick()
        if len(ended) == len(stop.children):
            return common_exit_code(list(ended.values()))
        now = time.monotonic()
        late = [child for child in stop.children if child.pid not in ended]
        if first is not None and now > first + policy.patience:
            _end(late, policy.number)
        elif stop.signal is not None and now > stop.at + policy.grace:
            _end(late, signal.SIGKILL)
        time.sleep(POLL_INTERVAL)


def _end(late: Sequence[subprocess.Popen[bytes]], number: int) -> None:
    for child in late:
        say(f"pid {child.pid} does not exit: {signal.Signals(number).name}")
        child.send_signal(number)
    deadline = time.monotonic() + KILL_DELAY
    while any(child.poll() is None for child in late) and time.monotonic() < deadline:
        time.sleep(POLL_INTERVAL)
    for child in late:
        if child.poll() is None:
            child.kill()
            child.wait()


def common_exit_code(codes: Sequence[int]) -> int:
    """One exit code for processes in the order in which they ended.

    A code that forbids a restart comes first, then the first that is not 0.
    """
    failures = [code for code in codes if code != DONE]
    final = [code for code in failures if code not in RETRIED]
    return (final or failures or [DONE])[0]


def spawn(
    argv: Sequence[str], environment: Mapping[str, str], log: Path | None
) -> subprocess.Popen[bytes]:
    """Starts a process that dies with this one and appends its output to `log` (None: inherits).

    It has a session of its own, so that Ctrl-C reaches it once, through this process.
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
    """Kills a trainer whose supervisor was killed; a second one could start otherwise."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def say(message: str) -> None:
    """Prints a message of the launcher."""
    print(f"launch: {message}", file=sys.stderr, flush=True)
