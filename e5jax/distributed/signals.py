"""Requests to stop, which arrive as one of `SIGNALS`.

While the program compiles, it exits at once; while it trains, it saves first. Exiting at once is
safe, since every artifact is written atomically.

Python runs a signal handler only between two bytecode instructions, and XLA compiles for minutes
without returning to Python. So a thread reads the signal number from the interpreter's wake-up
pipe, where it arrives immediately.

SIGHUP means that the terminal was closed. A run that was started with nohup ignores it.
"""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator

from e5jax.errors import STOPPED, StoppedError

JOINING = 10.0  # seconds to wait for the other processes to join, in order to notify them
# Slurm and MPI pass SIGUSR1 on to all processes of a job.
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)
_END = b"\0"

# Signals belong to the process, and so does this state.
_lock = threading.Lock()
_received, _held = threading.Event(), threading.Event()


class _Others:
    """How to notify the other processes of a run, once that is known."""

    notify: Callable[[str], int] | None = None
    known = threading.Event()


@contextlib.contextmanager
def listening(others: bool = False) -> Iterator[None]:
    """Inside, a signal ends the process with exit code `STOPPED`, unless `held` is active.

    Must be called in the main thread. `others`: the run has several processes, and
    `before_leaving` will set how to notify them.
    """
    if not others:
        _Others.known.set()
    read, write = os.pipe()
    os.set_blocking(write, False)
    numbers = [number for number in SIGNALS if number != signal.SIGHUP or not _nohup()]
    before = {number: signal.signal(number, _left_to_the_thread) for number in numbers}
    other = signal.set_wakeup_fd(write)
    thread = threading.Thread(target=_wait, args=(read,), name="signals", daemon=True)
    thread.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(other)
        for number, handler in before.items():
            signal.signal(number, handler)
        os.write(write, _END)
        thread.join()
        os.close(read)
        os.close(write)
        _received.clear()
        _Others.known.clear()


def ignore() -> None:
    """Ignores all `SIGNALS` from now on: the work is done and the process is about to exit."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def before_leaving(notify: Callable[[str], int] | None) -> None:
    """Sets what runs before a signal ends this process.

    `notify` receives the reason, notifies the other processes and returns the exit code.
    """
    _Others.notify = notify
    _Others.known.set()


@contextlib.contextmanager
def held() -> Iterator[None]:
    """Inside, a signal only makes `received` true; the caller saves and leaves the block.

    Raises StoppedError at the end of the block if a signal was received.
    """
    with _lock:
        _held.set()
    try:
        yield
        if _received.is_set():
            raise StoppedError("stopped by a signal; everything is saved: the same command resumes")
    finally:
        _held.clear()


def received() -> bool:
    """Whether a signal was received."""
    return _received.is_set()


def receive() -> None:
    """Acts as if this process had received the signal that another process of the run received."""
    _received.set()


def _nohup() -> bool:
    return signal.getsignal(signal.SIGHUP) == signal.SIG_IGN


def _wait(read: int) -> None:
    while (byte := os.read(read, 1)) != _END:
        if byte[0] in SIGNALS:
            _received.set()
            with _lock:
                if not _held.is_set():
                    _leave(signal.Signals(byte[0]).name)


def _leave(name: str) -> None:
    print(f"e5jax: {name}: stopped; the same command resumes", file=sys.stderr, flush=True)
    _Others.known.wait(JOINING)
    notify = _Others.notify
    os._exit(notify(f"{name}: stopped; the same command resumes") if notify else STOPPED)


def _left_to_the_thread(*_: object) -> None:
    """Does nothing: a signal reaches the wake-up pipe only if it has a Python handler."""
