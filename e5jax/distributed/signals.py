"""A notice to stop, one of `SIGNALS`, at any moment: compiling, the process ends at once; training, it saves first.

Python runs a signal's handler only between two lines of its own, and XLA compiles for minutes. So a thread waits for the number
that the interpreter writes to a pipe as soon as the signal arrives. To end at once is safe: artifacts are whole or not there.

SIGHUP says that the terminal has been closed. A run that was started with nohup ignores it and goes on.
"""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator

from e5jax.errors import STOPPED, StoppedError

JOINING = 10.0  # seconds that a process which is told to stop may take to find the others, so as to tell them
SIGNALS = (
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGHUP,
    signal.SIGUSR1,
)  # Slurm and MPI hand SIGUSR1 on to all processes of a job
_END = b"\0"

# Signals belong to the process, and so does this.
_lock = threading.Lock()
_received, _held = threading.Event(), threading.Event()


class _Others:
    """How to tell the other processes of a run, once that is known."""

    tell: Callable[[str], int] | None = None
    known = threading.Event()


@contextlib.contextmanager
def listening(others: bool = False) -> Iterator[None]:
    """Inside, a notice ends the process with `STOPPED`, unless it is `held`. For the main thread.

    With `others` the run has more processes, and `before_leaving` will say how to tell them.
    """
    if not others:
        _Others.known.set()
    read, write = os.pipe()
    os.set_blocking(write, False)
    heeded = [number for number in SIGNALS if number != signal.SIGHUP or not _nohup()]
    before = {number: signal.signal(number, _left_to_the_thread) for number in heeded}
    other = signal.set_wakeup_fd(write)
    thread = threading.Thread(target=_wait, args=(read,), name="notice", daemon=True)
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
    """From here on a notice changes nothing: the work is done, and the process ends by itself."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def before_leaving(tell: Callable[[str], int] | None) -> None:
    """From here on a notice that ends this process is told to the others by `tell`, which returns the exit code."""
    _Others.tell = tell
    _Others.known.set()


@contextlib.contextmanager
def held() -> Iterator[None]:
    """Inside, a notice only makes `received` true, and whoever holds it saves and leaves; then StoppedError, if there was one."""
    with _lock:
        _held.set()
    try:
        yield
        if _received.is_set():
            raise StoppedError("told to stop; all is saved, the same command goes on")
    finally:
        _held.clear()


def received() -> bool:
    """Whether there was a notice."""
    return _received.is_set()


def receive() -> None:
    """A notice to another process of this run is one to this."""
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
    print(f"e5jax: {name}: stopped; the same command goes on", file=sys.stderr, flush=True)
    _Others.known.wait(JOINING)
    os._exit(
        _Others.tell(f"{name}: told to stop; the same command goes on") if _Others.tell else STOPPED
    )


def _left_to_the_thread(*_: object) -> None:
    """A signal reaches the pipe only if it has a handler."""
