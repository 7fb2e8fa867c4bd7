"""The order of one set: numbers of its draws flow in, rows flow out. Every `size` draws are an epoch: each row once, shuffled anew.

A batch may take the last draws of an epoch and the first of the next one, and must not hold a row twice. So the rows that such a
span of draws has taken before the border come after the span in the next epoch; apart from that an epoch knows nothing of the one
before. Any two batches share as many rows as two random draws would, or none.

A large set is shuffled in units of several rows, and these once more in the parts of the epoch that spans leave. No order is held
of more than `UNITS`, and an epoch is computed from the last one that begins where no span is: a pure function of its number.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from e5jax.data.permutation import key, permute, shuffled

UNITS = 2**16
SHUFFLE = "a new order each epoch"  # what checkpoints say of it; another text where the order of a set becomes another
KEPT = 2  # epochs whose order is kept: those that a batch may take rows of


class Span(NamedTuple):
    """Draws around a border of epochs, among which no row may be twice: the last `tail` before it, the first `head` behind it."""

    head: int
    tail: int


Spans = Callable[[int], Sequence[Span]]  # at a border, said by the first draw behind it


class Epoch(NamedTuple):
    """The order of an epoch."""

    units: Int[np.ndarray, " units"]
    starts: Int[np.ndarray, " units"]  # place of the first row of each
    cuts: Int[np.ndarray, " cuts"]  # places between which rows are shuffled with each other


class Epochs:
    """The draws of a set, without end."""

    def __init__(self, size: int, seed: np.uint64, spans: Spans, most: int = UNITS):
        count = min(size, most)
        self._size, self._seed, self._spans = size, seed, spans
        self._bounds = np.arange(count + 1) * size // count
        self._kept: tuple[
            tuple[int, Epoch], ...
        ] = ()  # whole values: threads may do it twice, never by halves

    def rows(self, draws: Int[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
        """The row of each draw."""
        epochs, places = np.divmod(draws, self._size)
        rows = np.empty_like(draws)
        for number in np.unique(epochs).tolist():
            here = epochs == number
            rows[here] = self._rows(number, places[here])
        return rows

    def _rows(self, number: int, places: Int[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
        epoch = self._epoch(number)
        part = np.searchsorted(epoch.cuts, places, "right") - 1
        first, sizes = epoch.cuts[part], np.diff(epoch.cuts)[part]
        inside = first + permute(places - first, sizes, _keys(self._seed, number, epoch.cuts)[part])
        at = np.searchsorted(epoch.starts, inside, "right") - 1
        mixed = self._bounds[epoch.units[at]] + inside - epoch.starts[at]
        return permute(mixed, np.full_like(mixed, self._size), np.full(len(mixed), self._seed))

    def _epoch(self, number: int) -> Epoch:
        kept = dict(self._kept)
        if number not in kept:
            kept[number] = self._make(number, kept)
            self._kept = tuple(kept.items())[-KEPT:]
        return kept[number]

    def _make(self, number: int, kept: dict[int, Epoch]) -> Epoch:
        first, spans = number, [self._spans_before(number)]
        while spans[-1] and first - 1 not in kept:
            first -= 1
            spans.append(self._spans_before(first))
        units = kept[first - 1].units if spans[-1] else np.arange(len(self._bounds) - 1)
        for epoch in range(first, number + 1):
            units = _shuffled(units, self._in_units(spans.pop()), key(int(self._seed), epoch))
        starts = np.cumsum(np.diff(self._bounds)[units]) - np.diff(self._bounds)[units]
        heads = [span.head for span in self._spans_before(number)]
        tails = [self._size - span.tail for span in self._spans_before(number + 1)]
        return Epoch(units, starts, np.unique([0, *heads, *tails, self._size]))

    def _spans_before(self, epoch: int) -> Sequence[Span]:
        return self._spans(epoch * self._size) if epoch else ()

    def _in_units(self, spans: Sequence[Span]) -> list[Span]:
        """As many whole units as cover the spans, whichever units these are."""
        least = self._size // (len(self._bounds) - 1)
        return [Span(-(-span.head // least), -(-span.tail // least)) for span in spans]


def _shuffled(
    before: Int[np.ndarray, " n"], spans: Sequence[Span], seed: np.uint64
) -> Int[np.ndarray, " n"]:
    """A shuffle whose first `head` are none of the last `tail` before, for every span.

    Where large units leave no room for that, the order stays: then no row comes earlier than it did.
    """
    if any(span.head + span.tail > len(before) for span in spans):
        return before
    spans = [*sorted(spans), Span(len(before), 0)]
    parts, pool, taken, done = [], before[:0], 0, 0
    for number, span in enumerate(spans):
        free = len(before) - max(later.tail for later in spans[number:])
        pool = shuffled(np.concatenate([pool, before[taken:free]]), key(int(seed), number))
        parts.append(pool[: span.head - done])
        pool, taken, done = pool[span.head - done :], free, span.head
    return np.concatenate(parts)


def _keys(seed: np.uint64, number: int, cuts: Int[np.ndarray, " cuts"]) -> np.ndarray:
    return np.array([key(int(seed), "part", number, cut) for cut in cuts.tolist()], np.uint64)
