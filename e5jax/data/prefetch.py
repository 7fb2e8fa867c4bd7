"""Batches ahead of the step that needs them, from a thread or from worker processes, and how long the last one was waited for.

A worker is a Python process at the other end of a socket: the number of a batch goes in, the batch comes out. It ignores the
signals that stop a run, since the run still needs its batches while it saves; it ends when the socket is closed, as it is when
the run ends, however that happens. A worker that dies closes the socket, too, so that a run never waits for a dead one.
"""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from multiprocessing.connection import Connection, Pipe
from queue import SimpleQueue
from types import TracebackType
from typing import Self, cast

import grain

from e5jax.data.records import Batch
from e5jax.distributed.signals import SIGNALS
from e5jax.errors import ConfigError, RunError

AHEAD = 2  # batches of each worker that are ready or being made
CLOSING = 5.0  # seconds that a thread or a worker may take to end
# A worker imports from where its parent does. The parent's modules are not imported again, `__main__` least of all.
START = "import sys; sys.path[:] = sys.argv[2:]; from e5jax.data.prefetch import work; work(int(sys.argv[1]))"

Task = tuple[int, Future[Batch]]


class Prefetcher:
    """Iterates over batches `start` … `stop` - 1, in order, the same from any number of workers. Use with `with`.

    Work begins at once. Without workers a thread of this process makes the batches, and its tokenizer uses every core;
    each worker is a process and uses one.
    """

    def __init__(self, batches: grain.MapDataset[Batch], start: int, stop: int, workers: int):
        self._numbers = iter(range(start, stop))
        self._workers = [_Worker(batches) for _ in range(workers)]
        here = cast(
            Callable[[int], Batch], batches.__getitem__
        )  # a slice would be another data set
        self._tasks: SimpleQueue[Task | None] = SimpleQueue()
        # Daemons: a thread that cannot end must not keep the process alive.
        self._threads = [
            threading.Thread(target=_do, args=(self._tasks, make), name="batches", daemon=True)
            for make in self._workers or [here]
        ]
        self._pending: deque[Future[Batch]] = deque()
        for thread in self._threads:
            thread.start()
        for _ in range(AHEAD * len(self._threads)):
            self._request()
        self.waited = (
            0.0  # seconds; the device may have had work meanwhile, so it waited no longer than that
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for future in self._pending:
            future.cancel()
        for worker in self._workers:
            worker.kill()
        for _ in self._threads:
            self._tasks.put(None)
        for thread in self._threads:
            thread.join(CLOSING)
        for worker in self._workers:
            worker.close()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Batch:
        if not self._pending:
            raise StopIteration
        start = time.perf_counter()
        while not self._pending[0].done():
            running = [future for future in self._pending if not future.done()]
            wait(running, return_when=FIRST_COMPLETED)
            self._check_workers()
        self._check_workers()
        batch = self._pending.popleft().result()
        self.waited = time.perf_counter() - start
        self._request()
        return batch

    def _check_workers(self) -> None:
        """Raises RunError if a worker has died, though it be with a later batch: a new batch may take minutes."""
        for future in self._pending:
            if future.done() and isinstance(error := future.exception(), RunError):
                raise error

    def _request(self) -> None:
        number = next(self._numbers, None)
        if number is not None:
            future: Future[Batch] = Future()
            self._pending.append(future)
            self._tasks.put((number, future))


def _do(tasks: SimpleQueue[Task | None], make: Callable[[int], Batch]) -> None:
    """What a thread does: one task after the other."""
    while (task := tasks.get()) is not None:
        number, future = task
        if not future.set_running_or_notify_cancel():
            continue
        try:
            future.set_result(make(number))
        except BaseException as error:  # whatever it is, it is raised where the batch is needed
            future.set_exception(error)


class _Worker:
    """The process at the other end, for one thread at a time."""

    def __init__(self, batches: grain.MapDataset[Batch]):
        self._batches: grain.MapDataset[Batch] | None = batches  # sent once, not with every number
        self._socket, there = Pipe()
        with (
            there,
            _blocked(),
        ):  # the worker inherits what is blocked: no signal reaches it before it ignores them
            self._process = subprocess.Popen(  # noqa: S603  our own module, no shell
                [sys.executable, "-c", START, str(there.fileno()), *sys.path],
                stdin=subprocess.DEVNULL,
                pass_fds=[there.fileno()],
                env={
                    **os.environ,
                    "TOKENIZERS_PARALLELISM": "false",
                },  # workers are the parallelism
            )

    def __call__(self, number: int) -> Batch:
        try:
            if self._batches is not None:
                self._socket.send(self._batches)
                self._batches = None
            self._socket.send(number)
            batch, error = self._socket.recv()
        except (EOFError, OSError) as closed:
            raise RunError(
                f"a process that prepares batches has died ({self._end()}), as when the machine runs out of memory; the same "
                "command resumes from the last checkpoint, and fewer config.data.workers need less"
            ) from closed
        if error is not None:
            raise error
        return batch

    def _end(self) -> str:
        try:
            code = self._process.wait(CLOSING)
        except subprocess.TimeoutExpired:
            return f"pid {self._process.pid} has closed its socket"
        return f"exit code {code}" if code >= 0 else signal.Signals(-code).name

    def kill(self) -> None:
        """Ends the process; whoever waits for it learns that."""
        self._process.kill()

    def close(self) -> None:
        """Waits for the end of the process, though not for long: one that reads from a dead file server cannot be killed."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(CLOSING)
            self._socket.close()  # not while a thread still reads from it


@contextlib.contextmanager
def _blocked() -> Iterator[None]:
    """Inside, this thread and what it starts get none of `SIGNALS`; other threads do."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


# --- in a worker -----------------------------------------------------------------------------------------------


def work(descriptor: int) -> None:
    """Makes batches until the socket is closed."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    with Connection(descriptor) as socket, contextlib.suppress(EOFError, ConnectionError):
        batches = socket.recv()
        numbers: SimpleQueue[int] = SimpleQueue()
        threading.Thread(target=_receive, args=(socket, numbers), daemon=True).start()
        while True:
            socket.send(_make(batches, numbers.get()))


def _receive(socket: Connection, numbers: SimpleQueue[int]) -> None:
    """Reads numbers; ends the process as soon as nobody can send any, whatever it is doing."""
    with contextlib.suppress(EOFError, ConnectionError):
        while True:
            numbers.put(socket.recv())
    os._exit(0)


def _make(batches: grain.MapDataset[Batch], number: int) -> tuple[Batch | None, Exception | None]:
    """The batch, or what is wrong with its data; any other error ends the worker, with its traceback."""
    try:
        return cast(Batch, batches[number]), None
    except (ConfigError, OSError) as error:
        return None, error
