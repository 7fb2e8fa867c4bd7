"""The order of one set: numbers of draws flow in, rows flow out.

Every `size` draws are an epoch, which takes each row once, in a new order. A batch may take the
last draws of an epoch and the first of the next one, and must not contain a row twice. So rows that
such a span of draws takes before the border come after the span in the next epoch. Apart from that,
an epoch is independent of the one before: any two batches share as many rows as two random draws
would, or none.

Shuffles are computed, not stored, so a set of any size is shuffled at once and alike in every
process. A large set is shuffled in units of several rows, whose rows are shuffled once more within
the parts of the epoch that spans leave. No stored order exceeds `UNITS`, and an epoch is computed
from the last one that begins without a span: a pure function of its number.
"""

import hashlib
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int, UInt64

UNITS = 2**16
# The name of this order in checkpoints; it changes if the order of a set changes.
SHUFFLE = "a new order each epoch"
CACHED = 2  # epochs whose order is kept: those that a batch may take rows of
ROUNDS = 8  # of the Feistel network
LEAST = 3  # bits of a half: fewer numbers have too few Feistel permutations to be uniform
_WEYL = np.uint64(0x9E3779B97F4A7C15)
_MIX = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))


class Span(NamedTuple):
    """Draws around the border of two epochs, among which no row may occur twice."""

    head: int  # the first draws after the border
    tail: int  # the last draws before it


Spans = Callable[[int], Sequence[Span]]  # at a border, given by the first draw after it


class Epoch(NamedTuple):
    """The order of an epoch."""

    units: Int[np.ndarray, " units"]
    starts: Int[np.ndarray, " units"]  # place of the first row of each unit
    cuts: Int[np.ndarray, " cuts"]  # rows are shuffled between two cuts


class Epochs:
    """The draws of a set of `size` rows, without end."""

    def __init__(self, size: int, seed: np.uint64, spans: Spans, units: int = UNITS):
        count = min(size, units)
        self._size, self._seed, self._spans = size, seed, spans
        self._bounds = np.arange(count + 1) * size // count
        # Replaced as a whole: threads may compute an epoch twice, and never see a part of it.
        self._cache: tuple[tuple[int, Epoch], ...] = ()

    def rows(self, draws: Int[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
        """Returns the row of each draw."""
        epochs, places = np.divmod(draws, self._size)
        rows = np.empty_like(draws)
        for number in np.unique(epochs).tolist():
            inside = epochs == number
            rows[inside] = self._rows(number, places[inside])
        return rows

    def _rows(self, number: int, places: Int[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
        epoch = self._epoch(number)
        part = np.searchsorted(epoch.cuts, places, "right") - 1
        first, sizes = epoch.cuts[part], np.diff(epoch.cuts)[part]
        seeds = [key(int(self._seed), "part", number, cut) for cut in epoch.cuts.tolist()]
        inside = first + permute(places - first, sizes, np.array(seeds, np.uint64)[part])
        unit = np.searchsorted(epoch.starts, inside, "right") - 1
        mixed = self._bounds[epoch.units[unit]] + inside - epoch.starts[unit]
        return permute(mixed, np.full_like(mixed, self._size), np.full(len(mixed), self._seed))

    def _epoch(self, number: int) -> Epoch:
        cache = dict(self._cache)
        if number not in cache:
            cache[number] = self._compute(number, cache)
            self._cache = tuple(cache.items())[-CACHED:]
        return cache[number]

    def _compute(self, number: int, cache: dict[int, Epoch]) -> Epoch:
        first, spans = number, [self._spans_before(number)]
        while spans[-1] and first - 1 not in cache:
            first -= 1
            spans.append(self._spans_before(first))
        units = cache[first - 1].units if spans[-1] else np.arange(len(self._bounds) - 1)
        for epoch in range(first, number + 1):
            units = _reshuffled(units, self._in_units(spans.pop()), key(int(self._seed), epoch))
        starts = np.cumsum(np.diff(self._bounds)[units]) - np.diff(self._bounds)[units]
        heads = [span.head for span in self._spans_before(number)]
        tails = [self._size - span.tail for span in self._spans_before(number + 1)]
        return Epoch(units, starts, np.unique([0, *heads, *tails, self._size]))

    def _spans_before(self, epoch: int) -> Sequence[Span]:
        return self._spans(epoch * self._size) if epoch else ()

    def _in_units(self, spans: Sequence[Span]) -> list[Span]:
        """Rounds spans up to whole units of the smallest size."""
        least = self._size // (len(self._bounds) - 1)
        return [Span(-(-span.head // least), -(-span.tail // least)) for span in spans]


def _reshuffled(
    before: Int[np.ndarray, " n"], spans: Sequence[Span], seed: np.uint64
) -> Int[np.ndarray, " n"]:
    """A shuffle whose first `head` units are none of the last `tail` before, for every span.

    Where large units leave no room for that, the order stays: then no row comes earlier than it
    did.
    """
    if any(span.head + span.tail > len(before) for span in spans):
        return before
    spans = [*sorted(spans), Span(len(before), 0)]
    parts, pool, used, head = [], before[:0], 0, 0
    for number, span in enumerate(spans):
        free = len(before) - max(later.tail for later in spans[number:])
        pool = shuffled(np.concatenate([pool, before[used:free]]), key(int(seed), number))
        parts.append(pool[: span.head - head])
        pool, used, head = pool[span.head - head :], free, span.head
    return np.concatenate(parts)


# --- shuffles ------------------------------------------------------------------------------------


def key(*parts: object) -> np.uint64:
    """Returns a key that depends on all parts."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return np.uint64(int.from_bytes(digest, "little"))


def keys(
    seed: np.uint64 | UInt64[np.ndarray, " n"], numbers: Int[np.ndarray, " n"]
) -> UInt64[np.ndarray, " n"]:
    """Returns a key for each number, from one seed for all or from one each."""
    return _mix(numbers.astype(np.uint64) * _WEYL ^ seed)


def shuffled(values: Int[np.ndarray, " n"], seed: np.uint64) -> Int[np.ndarray, " n"]:
    """Returns all values in an order that depends on the seed."""
    return values[np.argsort(keys(seed, np.arange(len(values))), kind="stable")]


def permute(
    places: Int[np.ndarray, " n"], sizes: Int[np.ndarray, " n"], seeds: UInt64[np.ndarray, " n"]
) -> Int[np.ndarray, " n"]:
    """Returns the new place of each place, below its size, under its seed.

    Places with the same size and seed go to different places. A Feistel network permutes 2^2b
    numbers; a place that leaves `size` is permuted again until it is back inside.
    """
    bits = np.frexp(np.maximum(sizes - 1, 0).astype(np.float64))[1]  # of the largest place
    half = np.maximum(-(-bits // 2), LEAST).astype(np.uint64)
    moved = places.astype(np.uint64)
    outside = np.arange(len(places))
    while len(outside):
        moved[outside] = _feistel(moved[outside], half[outside], seeds[outside])
        outside = outside[moved[outside] >= sizes[outside].astype(np.uint64)]
    return moved.astype(np.int64)


def _feistel(
    numbers: UInt64[np.ndarray, " n"],
    half: UInt64[np.ndarray, " n"],
    seeds: UInt64[np.ndarray, " n"],
) -> UInt64[np.ndarray, " n"]:
    """A permutation of the numbers of 2 × half bits."""
    mask = (np.uint64(1) << half) - np.uint64(1)
    left, right = numbers >> half, numbers & mask
    for number in range(ROUNDS):
        mixed = _mix(right * _WEYL + seeds + np.full_like(seeds, number) * _MIX[0])
        left, right = right, left ^ (mixed & mask)
    return left << half | right


def _mix(numbers: UInt64[np.ndarray, " n"]) -> UInt64[np.ndarray, " n"]:
    """SplitMix64's finaliser: every bit of the result depends on every bit of the number."""
    numbers = (numbers ^ numbers >> np.uint64(30)) * _MIX[0]
    numbers = (numbers ^ numbers >> np.uint64(27)) * _MIX[1]
    return numbers ^ numbers >> np.uint64(31)
