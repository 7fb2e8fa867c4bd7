"""Batches ahead: in order, from workers too, and what is seen when something goes wrong in one."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import grain
import numpy as np
import pytest

from e5jax.data.prefetch import AHEAD, Prefetcher
from e5jax.distributed.signals import SIGNALS
from e5jax.errors import ConfigError, RunError

ROOT = Path(__file__).parent.parent.parent
LARGE = 2**27  # bytes, which take many times longer to send than the longest of DELAYS
DELAYS = (0.01, 0.06)  # seconds
MORTAL = """
import sys, time, grain
from tests.data import test_prefetch
from e5jax.data.prefetch import Prefetcher
with Prefetcher(test_prefetch.numbers(test_prefetch.busy), 0, 9, 2) as feed:
    print(next(feed), *(worker._process.pid for worker in feed._workers), flush=True)
    time.sleep(60)
"""


def number(step: int) -> int:
    return step


def refuse(step: int) -> int:
    if step == 5:
        raise ConfigError(f"step {step} is bad")
    return step


def end(step: int) -> int:
    os._exit(1 + step)


def killed_while_sending(step: int) -> np.ndarray:
    """A batch in the middle of which its worker is killed, if the delay is right."""
    threading.Timer(DELAYS[step % len(DELAYS)], os.kill, (os.getpid(), signal.SIGKILL)).start()
    return np.zeros(LARGE, np.uint8)


def signalled(step: int) -> int:
    """Sends its own process all that could reach it as one of a group."""
    for number in SIGNALS:
        os.kill(os.getpid(), number)
    return step


def busy(step: int) -> int:
    """Makes its batch for ever from the second on."""
    while step:
        time.sleep(1)
    return step


def numbers(transform):
    return grain.MapDataset.range(sys.maxsize).map(transform)


@pytest.mark.parametrize(("start", "stop"), [(0, 1), (3, 9), (4, 4)])
def test_all_numbers_come_in_order_and_no_other_is_made(start, stop):
    made = []
    with Prefetcher(numbers(lambda step: made.append(step) or step), start, stop, 0) as feed:
        assert list(feed) == made == list(range(start, stop))


def test_no_more_is_made_than_what_is_ahead():
    made = []
    with Prefetcher(numbers(lambda step: made.append(step) or step), 0, 100, 0) as feed:
        next(feed)
        time.sleep(0.2)
        assert len(made) <= 1 + AHEAD


def test_the_wait_is_that_for_the_last_batch_alone():
    gate = threading.Event()
    with Prefetcher(numbers(lambda step: gate.wait(10) and step), 0, 2, 0) as feed:
        threading.Timer(0.3, gate.set).start()
        next(feed)
        first = feed.waited
        time.sleep(0.2)  # the second is ready long before
        next(feed)
    assert first > 0.2
    assert feed.waited < first / 2


def test_workers_keep_order_report_what_is_wrong_and_say_when_one_is_gone():
    with Prefetcher(numbers(refuse), 2, 8, 2) as feed:
        assert [next(feed) for _ in range(3)] == [2, 3, 4]
        with pytest.raises(ConfigError, match="step 5 is bad"):
            next(feed)
    with (
        Prefetcher(numbers(end), 0, 2, 1) as feed,
        pytest.raises(RunError, match=r"died \(exit code 1\).*fewer config\.data\.workers"),
    ):
        next(feed)


def test_a_worker_that_is_killed_while_it_sends_a_batch_is_an_error_and_no_wait():
    for step in range(len(DELAYS)):
        with (
            Prefetcher(numbers(killed_while_sending), step, step + 2, 1) as feed,
            pytest.raises(RunError, match=r"died \(SIGKILL\)"),
        ):
            [next(feed) for _ in range(2)]  # a whole batch may come before the kill, though not two


def test_signals_that_stop_a_run_end_no_worker_neither_before_it_has_begun_nor_at_work():
    with Prefetcher(numbers(signalled), 0, 4, 2) as feed:
        for worker in feed._workers:
            for each in SIGNALS:
                os.kill(worker._process.pid, each)
        assert list(feed) == [0, 1, 2, 3]


def test_workers_end_with_the_process_that_trains_though_it_is_killed_and_they_are_busy():
    process = subprocess.Popen(
        [sys.executable, "-c", MORTAL], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    with process, process.stdout:
        _, *workers = map(int, process.stdout.readline().split())
        process.kill()
    deadline = time.monotonic() + 20
    while left := [pid for pid in workers if Path(f"/proc/{pid}/exe").exists()]:
        assert time.monotonic() < deadline, left
        time.sleep(0.05)


def test_a_feed_that_is_left_early_leaves_no_process_and_no_thread():
    with Prefetcher(numbers(busy), 0, 9, 2) as feed:
        assert next(feed) == 0
    assert [worker._process.returncode for worker in feed._workers] == [-signal.SIGKILL] * 2
    assert not [thread for thread in feed._threads if thread.is_alive()]
