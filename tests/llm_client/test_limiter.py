"""The pace of requests, on a clock of its own, against an endpoint that allows so many a minute and says when to come back."""

import heapq
import math
import os
import random
from typing import NamedTuple

import pytest

from e5jax.llm_client.limiter import Limiter
from e5jax.llm_client.session import FIRST_SLOTS

WORKERS = 64


class Course(NamedTuple):
    """What became of a run."""

    used: float  # share of the allowed rate, once it is known
    refused: float  # share of all requests
    early: int  # requests before a Retry-After was over
    sent: list[float]


class Allowed:
    """A bucket that holds what one second allows."""

    def __init__(self, a_minute: float):
        self.rate = a_minute / 60
        self.level, self.at = self.rate, 0.0

    def lacks(self, now: float, amount: float) -> float:
        self.level, self.at = (
            min(max(self.rate, amount), self.level + self.rate * (now - self.at)),
            now,
        )
        return max(0.0, (amount - self.level) / self.rate)


def simulate(
    limiter: Limiter,
    allowed: float,
    count: int,
    seed: int,
    tokens: float = math.inf,
    down: range = range(0),
) -> Course:
    """Workers, one more with each answer, which then ask again, until `count` have one. Whole seconds of Retry-After, as usual."""
    chance = random.Random(seed)
    requests, words = Allowed(allowed), Allowed(tokens)
    events, workers = [(0.0, i, "ask", 0.0, 0) for i in range(FIRST_SLOTS)], FIRST_SLOTS
    number, answered, refused, early, until, sent = WORKERS, 0, 0, 0, 0.0, []
    while answered < count:
        now, _, kind, started, size = heapq.heappop(events)
        number += 1
        if kind == "ask":
            if wait := limiter.take(now, 600):
                heapq.heappush(events, (now + wait, number, "ask", 0.0, 0))
                continue
            sent.append(now)
            early += now < until
            if int(now) in down:
                heapq.heappush(events, (now + 0.05, number, "break", now, 0))
                continue
            size = chance.randint(100, 600)
            lack = max(requests.lacks(now, 1), words.lacks(now, size))
            if lack:
                heapq.heappush(events, (now + 0.05, number, "refuse", now, math.ceil(lack)))
            else:
                requests.level -= 1
                words.level -= size
                heapq.heappush(
                    events, (now + chance.uniform(0.2, 2.0), number, "answer", now, size)
                )
        elif kind == "refuse":
            refused += 1
            until = max(until, now + size)
            limiter.refused(now, started, size)
            heapq.heappush(events, (now + chance.uniform(0, 1), number, "ask", 0.0, 0))
        elif kind == "break":
            limiter.broke(now)
            heapq.heappush(events, (now + chance.uniform(0, 2), number, "ask", 0.0, 0))
        else:
            answered += 1
            limiter.answered(600, size)
            more = workers < WORKERS
            workers += more
            for i in range(1 + more):
                heapq.heappush(events, (now, number + i / 2, "ask", 0.0, 0))
    steady = [at for at in sent if at > 60]
    return Course(
        len(steady) / ((now - 60) * requests.rate) if now > 60 else 0.0,
        refused / len(sent),
        early,
        sent,
    )


@pytest.mark.parametrize("seed", range(int(os.environ.get("E5JAX_SYNTH_SEEDS", "1"))))
def test_an_unknown_rate_is_found_used_and_kept(seed):
    course = simulate(Limiter(), 1_200, 10_000, seed)
    assert course.early == 0
    assert course.refused <= 0.02
    assert course.used >= 0.9


def test_a_rate_of_one_a_second_is_found_too():
    course = simulate(Limiter(), 60, 3_000, 0)
    assert course.early == 0
    assert course.refused <= 0.02
    assert course.used >= 0.9


def test_a_known_rate_is_used_without_refusals():
    course = simulate(Limiter(requests_a_minute=1_200), 1_200, 3_000, 0)
    assert course.early == course.refused == 0
    assert course.used >= 0.97


def test_a_known_rate_of_tokens_is_used_though_each_request_takes_more_than_it_needs():
    course = simulate(Limiter(tokens_a_minute=350 * 600), 1e9, 2_000, 0, tokens=350 * 600)
    assert course.early == 0
    assert course.refused <= 0.02
    assert len(course.sent) / course.sent[-1] >= 0.9 * 10  # 600 a minute of 350 tokens on average


def test_a_rate_that_is_set_too_high_is_cut_down():
    course = simulate(Limiter(requests_a_minute=6_000), 1_200, 3_000, 0)
    assert course.early == 0
    assert course.refused <= 0.05  # of a short run
    assert course.used >= 0.9


@pytest.mark.parametrize("limiter", [Limiter(), Limiter(requests_a_minute=1_200)])
def test_nobody_rushes_in_after_an_outage(limiter):
    course = simulate(limiter, 1_200, 4_000, 0, down=range(100, 110))
    after = sorted(at for at in course.sent if 109 < at < 130)
    most = max(sum(start <= at < start + 0.1 for at in after) for start in after)
    assert most <= 2 * 20 * 0.1  # twice what 100 ms of the steady rate are


def test_a_pause_holds_for_everyone_and_the_longer_one_counts():
    limiter = Limiter()
    assert limiter.take(0.0, 1) == 0
    limiter.pause(0.0, 5.0)
    limiter.pause(1.0, 1.0)
    assert limiter.take(2.0, 1) == 3.0
    assert limiter.take(5.0, 1) == 0


def test_refusals_of_one_burst_cut_the_rate_once():
    limiter = Limiter(requests_a_minute=600)
    for i in range(100):
        limiter.take(i / 10, 1)
    for i in range(50):
        limiter.refused(10.0 + i / 1000, 9.0, None)
    assert 9 < limiter.rate < 10


@pytest.mark.parametrize("a_minute", [0, 1_200])
@pytest.mark.parametrize("wait", [None, 1.0])
def test_refusals_one_by_one_of_a_slow_machine_do_not_take_the_rate_away(wait, a_minute):
    """Each request is sent once the one before has been refused: none of them is old news, and none was taken between."""
    limiter, now = Limiter(requests_a_minute=a_minute), 0.0

    def asks() -> float:
        nonlocal now
        while wait := limiter.take(now, 1):
            now += wait
        now += 0.25
        return now - 0.25

    for _ in range(12):
        asks()
        limiter.answered(1, 1)
    for _ in range(8):
        sent = asks()
        limiter.refused(now, sent, wait)
    before = now
    for _ in range(40):
        asks()
    assert now - before < 40  # seconds; at a request a minute they would be 2,400


def test_failures_here_and_there_are_no_outage():
    limiter = Limiter()
    for i in range(100):
        limiter.take(i / 10, 1)
        if i % 4:
            limiter.answered(1, 1)
        else:
            limiter.broke(i / 10)
    assert limiter.rate == math.inf


def test_after_an_outage_an_unlimited_rate_is_what_was_taken_before():
    limiter = Limiter()
    for i in range(100):
        limiter.take(i / 10, 1)
        limiter.answered(1, 1)
    for i in range(20):
        limiter.take(10 + i / 100, 1)
        limiter.broke(10 + i / 100)
    assert limiter.rate == pytest.approx(10, rel=0.05)
