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


class Signals:
    """The signals that this process receives while it is `listening`.

    `joins`: the process will join others, and `notify_by` will set how to notify them.
    """

    def __init__(self, joins: bool = False):
        self._lock = threading.Lock()
        self._received, self._held = threading.Event(), threading.Event()
        self._notify: Callable[[str], int] | None = None
        self._can_notify = threading.Event()
        if not joins:
            self._can_notify.set()

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Inside, a signal ends the process with exit code `STOPPED`, unless `held` is active.

        Must be called in the main thread.
        """
        read, write = os.pipe()
        os.set_blocking(write, False)
        numbers = [number for number in SIGNALS if number != signal.SIGHUP or not _nohup()]
        before = {number: signal.signal(number, _left_to_the_thread) for number in numbers}
        other = signal.set_wakeup_fd(write)
        thread = threading.Thread(target=self._wait, args=(read,), name="signals", daemon=True)
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

    def notify_by(self, notify: Callable[[str], int] | None) -> None:
        """Sets what runs before a signal ends this process.

        `notify` receives the reason, notifies the other processes and returns the exit code.
        """
        self._notify = notify
        self._can_notify.set()

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Inside, a signal only makes `received` true; the caller saves and leaves the block.

        Raises StoppedError at the end of the block if a signal was received.
        """
        with self._lock:
            self._held.set()
        try:
            yield
            if self.received:
                raise StoppedError(
                    "stopped by a signal; everything is saved: the same command resumes"
                )
        finally:
            self._held.clear()

    @property
    def received(self) -> bool:
        """Whether a signal was received."""
        return self._received.is_set()

    def receive(self) -> None:
        """Acts as if this process had received the signal that another process received."""
        self._received.set()

    def _wait(self, read: int) -> None:
        while (byte := os.read(read, 1)) != _END:
            if byte[0] in SIGNALS:
                self._received.set()
                with self._lock:
                    if not self._held.is_set():
                        self._exit(signal.Signals(byte[0]).name)

    def _exit(self, name: str) -> None:
        why = f"{name}: stopped; the same command resumes"
        print(f"e5jax: {why}", file=sys.stderr, flush=True)
        self._can_notify.wait(JOINING)
        os._exit(self._notify(why) if self._notify else STOPPED)


def ignore() -> None:
    """Ignores all `SIGNALS` from now on: the work is done and the process is about to exit."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def _nohup() -> bool:
    return signal.getsignal(signal.SIGHUP) == signal.SIG_IGN


def _left_to_the_thread(*_: object) -> None:
    """Does nothing: a signal reaches the wake-up pipe only if it has a Python handler."""
