"""Batches ahead: in order, from workers too, and what is seen when something goes wrong in one."""

import os
import sys
import threading
import time
from pathlib import Path

import grain
import pytest

from e5jax.data.feed import AHEAD, Feed
from e5jax.errors import ConfigError, RunError

ROOT = Path(__file__).parent.parent.parent


def number(step: int) -> int:
    return step


def refuse(step: int) -> int:
    if step == 5:
        raise ConfigError(f"step {step} is bad")
    return step


def end(step: int) -> int:
    os._exit(1 + step)


def numbers(transform):
    return grain.MapDataset.range(sys.maxsize).map(transform)


@pytest.mark.parametrize(("start", "stop"), [(0, 1), (3, 9), (4, 4)])
def test_all_numbers_come_in_order_and_no_other_is_made(start, stop):
    made = []
    with Feed(numbers(lambda step: made.append(step) or step), start, stop, 0) as feed:
        assert list(feed) == made == list(range(start, stop))


def test_no_more_is_made_than_what_is_ahead():
    made = []
    with Feed(numbers(lambda step: made.append(step) or step), 0, 100, 0) as feed:
        next(feed)
        time.sleep(0.2)
        assert len(made) <= 1 + AHEAD


def test_the_wait_is_that_for_the_last_batch_alone():
    gate = threading.Event()
    with Feed(numbers(lambda step: gate.wait(10) and step), 0, 2, 0) as feed:
        threading.Timer(0.3, gate.set).start()
        next(feed)
        first = feed.waited
        time.sleep(0.2)  # the second is ready long before
        next(feed)
    assert first > 0.2
    assert feed.waited < first / 2


def test_workers_keep_order_report_what_is_wrong_and_say_when_one_is_gone():
    with Feed(numbers(refuse), 2, 8, 2) as feed:
        assert [next(feed) for _ in range(3)] == [2, 3, 4]
        with pytest.raises(ConfigError, match="step 5 is bad"):
            next(feed)
    with Feed(numbers(end), 0, 2, 1) as feed, pytest.raises(RunError, match=r"has died.*fewer config\.data\.workers"):
        next(feed)
