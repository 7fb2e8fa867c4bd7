"""Batches ahead of the step that wants them, from a thread or from processes, and how long the last one was waited for."""

import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context, parent_process
from types import TracebackType
from typing import Self, cast

import grain

from e5jax.errors import RunError
from e5jax.records import Batch

AHEAD = 2  # batches of each worker that are ready or being made


class Feed:
    """Iterates over batches `start` … `stop` - 1, in order, the same from any number of workers. Use with `with`.

    Work begins at once. Without workers a thread of this process makes the batches, and its tokenizer uses every core;
    each worker is a process and uses one.
    """

    def __init__(self, batches: grain.MapDataset[Batch], start: int, stop: int, workers: int):
        self._numbers = iter(range(start, stop))
        self._workers: Executor
        self._make: Callable[[int], Batch]
        if workers:
            # Spawned, not forked: a fork of a process with XLA's threads can hang.
            spawn = get_context("spawn")
            self._workers = ProcessPoolExecutor(workers, spawn, initializer=_begin, initargs=(batches,))
            self._make = _batch
        else:
            self._workers = ThreadPoolExecutor(1, thread_name_prefix="batches")
            self._make = cast(Callable[[int], Batch], batches.__getitem__)  # a slice would be another data set
        self._pending: deque[Future[Batch]] = deque()
        for _ in range(AHEAD * max(workers, 1)):
            self._ask()
        self.waited = 0.0  # seconds; the device may have had work meanwhile, so it waited no longer than that

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._workers.shutdown(cancel_futures=True)

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        if not self._pending:
            raise StopIteration
        start = time.perf_counter()
        try:
            batch = self._pending.popleft().result()
        except BrokenProcessPool as error:
            raise RunError(
                "a process that prepares batches has died, as when the machine runs out of memory; the same command goes on "
                "from the last checkpoint, and fewer config.data.workers need less"
            ) from error
        self.waited = time.perf_counter() - start
        self._ask()
        return batch

    def _ask(self) -> None:
        number = next(self._numbers, None)
        if number is not None:
            self._pending.append(self._workers.submit(self._make, number))


# --- in a worker -----------------------------------------------------------------------------------------------


class _Own:
    """What a worker works with: it is sent once, not with every batch."""

    batches: grain.MapDataset[Batch]


def _begin(batches: grain.MapDataset[Batch]) -> None:
    _Own.batches = batches
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # workers are the parallelism
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # ctrl-C is for the process that trains
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = parent_process()
    assert parent is not None, "a worker was started by somebody"
    parent.join()
    os._exit(1)  # it was killed: nobody will ever ask again


def _batch(number: int) -> Batch:
    return cast(Batch, _Own.batches[number])
