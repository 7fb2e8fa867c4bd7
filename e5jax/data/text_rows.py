"""Texts that are only encoded: token ids flow in, rows of few shapes flow out."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from e5jax.data.packing import SHARED, Layout, Rows, first_fit_decreasing, lay_out

ROW = 512  # tokens per row, if no text is longer
NARROWEST = 32  # tokens per row, if there are few tokens
SLOT = 8  # tokens: a row has room for one text per so many
SHORTEST_SHARED = 16  # tokens: the number of shared tokens is a multiple of it


class Call(NamedTuple):
    """Rows that are encoded at once."""

    rows: Rows  # without chunks: `[n t]` and `[n s]`
    texts: Int[np.ndarray, " texts"]  # indices into the list
    slots: Int[np.ndarray, " texts"]  # where each text is among the n · s slots of the rows
    shared: int  # tokens at the start of each row with which all of its texts begin


def calls(
    texts: Sequence[list[int]],
    limit: int,
    tokens: int,
    devices: int,
    window: int | None,
    causal: bool = True,
) -> Iterator[Call]:
    """Yields every text once, about `tokens` per device and call, the widest rows first.

    Rows have ROW tokens, or more if texts are longer; shorter texts fill the rest of these. What all
    texts begin with, an instruction, is in a row once if that saves work, and if no `window` of
    attention excludes it. If attention is not `causal`, that prefix would attend to all texts of
    the row, so each text keeps its own.
    """
    lengths = np.fromiter(map(len, texts), np.int64, len(texts))
    left = np.argsort(-lengths, kind="stable")
    while len(left):
        long = lengths[left]
        width = _width(int(long[0]), int(long.sum()), limit)
        can_share = causal and (window is None or width <= window)
        shared = _shared(texts, long, width) if can_share else 0
        slots = max(1, width // SLOT)
        row, slot = first_fit_decreasing(
            long - shared, np.zeros_like(left), width - shared, slots
        ).T
        # Two texts of more than half a row never share one, so these opened the first rows.
        count = int(row.max()) + 1 if width <= ROW else int(np.sum(long > width // 2))
        most = max(1, tokens // width) * devices
        whole, rest = divmod(count, most)
        last = min(most, devices * _power_of_two(-(-rest // devices))) if rest else 0
        now = row < count
        own = [texts[text][shared:] if shared else texts[text] for text in left[now]]
        to = Layout(1, whole * most + last, width - shared, slots, 1, 0)
        parts = lay_out(own, long[now] - shared, row[now], slot[now], to)
        rows = _with_prefix(texts[0][:shared], Rows(*(part[0] for part in parts)))
        for start in range(0, to.rows, most):
            here = now & (row >= start) & (row < start + most)
            at = (row[here] - start) * slots + slot[here]
            yield Call(Rows(*(part[start : start + most] for part in rows)), left[here], at, shared)
        left = left[~now]


def _width(longest: int, total: int, limit: int) -> int:
    if longest > ROW:
        return min(_power_of_two(longest), limit)
    return min(ROW, max(NARROWEST, _power_of_two(total)))


def _shared(texts: Sequence[list[int]], lengths: Int[np.ndarray, " texts"], width: int) -> int:
    """How many tokens all texts begin with, or 0 if encoding them once per row saves nothing."""
    if len(texts) == 1 or width > ROW:
        return 0
    first, last = min(texts), max(texts)  # in lexicographic order: these differ soonest
    pairs = enumerate(zip(first, last, strict=False))
    same = next((i for i, (a, b) in pairs if a != b), len(first))
    # Each number of shared tokens is a shape to compile.
    shared = min(same, int(lengths.min()) - 1) // SHORTEST_SHARED * SHORTEST_SHARED
    return shared if shared > 0 and width - shared >= 2 * (lengths.mean() - shared) else 0


def _with_prefix(shared: list[int], rows: Rows) -> Rows:
    """Adds these tokens at the start of each row."""
    n, count = len(rows.tokens), len(shared)
    if not count:
        return rows

    def widened(start: Sequence[int] | int, part: np.ndarray) -> np.ndarray:
        prefix = np.broadcast_to(np.array(start, np.int32), (n, count))
        return np.concatenate([prefix, part], axis=1)

    return Rows(
        widened(shared, rows.tokens),
        widened(SHARED, rows.segments),
        widened(range(count), np.where(rows.segments > 0, rows.positions + count, 0)),
        np.where(rows.ends >= 0, rows.ends + count, -1),
    )


def _power_of_two(number: int) -> int:
    """Returns the smallest power of two that is at least `number`."""
    return 1 << (number - 1).bit_length()
