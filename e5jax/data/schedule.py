"""Which sets the draws of a run come from: how many each set has given before a step, a pure function of the step.

Draws come in units: one, or a whole batch where batches are of one set. `interleaved` splits the number of units in two by the
weights of two groups of sets, each part again, down to the single sets: no state, and no set is ever more than a few draws from
its share. `random` draws the units of a batch.
"""

import heapq
import math
from bisect import bisect_right
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from e5jax.data.permutation import key

BLOCK = 1_024  # steps whose random counts are drawn at once
SIGMAS = 10  # beyond which no count is expected

Given = Callable[[int], Int[np.ndarray, " sets"]]  # draws from each set before a step


class Fork(NamedTuple):
    """Two groups of sets and their weights; a group of one is the set's number."""

    left: "Fork | int"
    right: "Fork | int"
    part: int  # weight of the left one
    whole: int  # of both


def fork(weights: Sequence[int]) -> Fork | int:
    """Heavy sets near the root (Huffman's tree): each fork rounds, and few roundings then touch a large count."""
    heap: list[tuple[int, int, Fork | int]] = [
        (weight, number, number) for number, weight in enumerate(weights)
    ]
    heapq.heapify(heap)
    for number in range(len(weights), 2 * len(weights) - 1):
        (light, _, right), (heavy, _, left) = heapq.heappop(heap), heapq.heappop(heap)
        heapq.heappush(heap, (light + heavy, number, Fork(left, right, heavy, light + heavy)))
    return heap[0][2]


def split(
    at: Fork | int, units: int | Int[np.ndarray, " n"]
) -> dict[int, int | Int[np.ndarray, " n"]]:
    """How many of the first `units` are from each set. Growing by one unit is growing by one in one set."""
    if isinstance(at, int):
        return {at: units}
    rounds, rest = units // at.whole, units % at.whole
    left = rounds * at.part + (2 * rest * at.part + at.whole) // (2 * at.whole)
    return split(at.left, left) | split(at.right, units - left)


def most(at: Fork | int, units: int) -> dict[int, int]:
    """The most of each set in any `units` that follow each other."""
    if isinstance(at, int):
        return {at: units}
    left, right = (-(-units * part // at.whole) for part in (at.part, at.whole - at.part))
    return most(at.left, left) | most(at.right, right)


def step_of(given: Given, number: int, draw: int, rate: float) -> int:
    """The step that takes a draw of a set which gives `rate` draws a step on average."""
    low, width = int(draw / rate), 1
    high = low + 1
    while given(low)[number] > draw:
        low, width = max(0, low - width), 2 * width
    while given(high)[number] <= draw:
        high, width = high + width, 2 * width
    return low + bisect_right(range(low, high), draw, key=lambda step: given(step)[number]) - 1


class Interleaved(NamedTuple):
    """The sets' draws spread evenly over the run."""

    forks: Fork | int
    units: int  # a batch
    unit: int  # draws

    def __call__(self, step: int) -> Int[np.ndarray, " sets"]:
        found = split(self.forks, step * self.units)
        return np.array([found[number] for number in range(len(found))], np.int64) * self.unit


class Random:
    """The units of every batch drawn by weight; a set gives at most its `most` to one, what is too much the others give."""

    def __init__(
        self, weights: Sequence[int], most: Sequence[int], units: int, unit: int, seed: int
    ):
        self._shares = np.array(weights, np.float64) / math.fsum(weights)
        self._most = np.array(most, np.int64)
        self._units, self._unit, self._seed = units, unit, seed
        self._before: tuple[Int[np.ndarray, " sets"], ...] = (np.zeros(len(weights), np.int64),)
        self._block: tuple[int, Int[np.ndarray, "steps sets"]] = (
            -1,
            np.zeros((0, len(weights)), np.int64),
        )

    def __call__(self, step: int) -> Int[np.ndarray, " sets"]:
        number, rest = divmod(step, BLOCK)
        before = self._before
        while len(before) <= number:
            before = (*before, before[-1] + self._counts(len(before) - 1)[-1])
        held = self._block if self._block[0] == number else (number, self._counts(number))
        self._before, self._block = (
            before,
            held,
        )  # whole values: threads may do it twice, never by halves
        return (before[number] + (held[1][rest - 1] if rest else 0)) * self._unit

    def _counts(self, block: int) -> Int[np.ndarray, "steps sets"]:
        """Units from each set since the block began, after each of its steps."""
        random = np.random.default_rng([self._seed, int(key("sets")), block])
        counts = random.multinomial(self._units, self._shares, BLOCK)
        for row in np.flatnonzero((counts > self._most).any(axis=1)):
            counts[row] = self._within(counts[row], random)
        return np.cumsum(counts, axis=0)

    def _within(
        self, counts: Int[np.ndarray, " sets"], random: np.random.Generator
    ) -> Int[np.ndarray, " sets"]:
        while (over := int(np.maximum(counts - self._most, 0).sum())) > 0:
            counts = np.minimum(counts, self._most)
            free = self._shares * (counts < self._most)
            counts += random.multinomial(over, free / free.sum())
        return counts


def probable_most(weight: int, whole: int, units: int) -> int:
    """More than a set gives to `units` random draws, but for a chance that nobody meets."""
    mean = units * weight / whole
    return min(units, math.ceil(mean + SIGMAS * math.sqrt(mean) + SIGMAS))
