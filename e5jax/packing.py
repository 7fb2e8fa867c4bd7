"""Texts into rows: first-fit-decreasing, one fixed shape, and a layout that does not depend on the machine.

A batch is `[chunks, rows, width]` tokens. The examples are dealt to `shards` virtual shards, as many to each and about
as long, and each shard packs its own texts into its own rows of every chunk. Hosts and devices take whole shards, so
neither their number nor their order changes where a text lies. There are rows enough for texts of any lengths.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from e5jax.config import Batch as BatchConfig
from e5jax.records import Batch


class Layout(NamedTuple):
    """The shape of a batch."""

    chunks: int
    rows: int  # a chunk, over all shards
    width: int  # tokens a row
    texts_a_row: int
    shards: int


def layout(batch: BatchConfig, limit: int) -> Layout:
    """The layout of batches whose texts have at most `limit` tokens: as many rows as the worst of them needs."""
    rows = -(-batch.texts // (batch.shards * batch.chunks * batch.sure(limit)))  # a chunk and shard, rounded up
    return Layout(batch.chunks, rows * batch.shards, batch.width(limit), batch.texts_a_row, batch.shards)


def deal(lengths: Int[np.ndarray, " n"], shards: int) -> Int[np.ndarray, " n"]:
    """An order of the examples in which each shard's part has about the same sum of lengths: a pod waits for its fullest shard.

    The examples are dealt longest first, forwards and backwards in turn. Inside a shard they keep the order given.
    """
    dealt = np.argsort(-lengths, kind="stable").reshape(-1, shards)
    dealt[1::2] = dealt[1::2, ::-1].copy()
    return np.sort(dealt.T, axis=1).ravel()


def first_fit_decreasing(lengths: Sequence[int], width: int, most: int) -> Int[np.ndarray, "texts 2"]:
    """(row, slot) of each text: the longest first, each into the first row with `width` and one of `most` slots left.

    Texts of one length keep their order.
    """
    room = np.full(len(lengths), width)
    used = np.zeros(len(lengths), np.int64)
    found = np.zeros((len(lengths), 2), np.int64)
    for text in np.argsort(-np.asarray(lengths), kind="stable"):
        row = np.argmax(room >= lengths[text])
        found[text] = row, used[row]
        used[row] += 1
        # A row without a free slot has no room either: one comparison answers both questions.
        room[row] = room[row] - lengths[text] if used[row] < most else 0
    return found


def pack(queries: Sequence[list[int]], passages: Sequence[list[int]], to: Layout) -> Batch:
    """Lays the ids of texts out; the passages of query i are those from `i * len(passages) / len(queries)` on."""
    rows = to.rows // to.shards
    wide, slots = (to.chunks, to.shards, rows, to.width), (to.chunks, to.shards, rows, to.texts_a_row)
    tokens, segments, positions = (np.zeros(wide, np.int32) for _ in range(3))
    ends = np.full(slots, -1, np.int32)
    asked, answers = (np.zeros((to.shards, len(texts) // to.shards), np.int32) for texts in (queries, passages))
    for shard in range(to.shards):
        own = [*_part(queries, shard, to.shards), *_part(passages, shard, to.shards)]
        starts = np.zeros(to.chunks * rows, np.int64)
        place = first_fit_decreasing([len(ids) for ids in own], to.width, to.texts_a_row)
        # A row's slots fill from the left: by slot number every start is known when it is needed.
        for text in np.argsort(place[:, 1], kind="stable"):
            (row, slot), ids = place[text], own[text]
            where = (row // rows, shard, row % rows)
            span = slice(starts[row], starts[row] + len(ids))
            tokens[where][span] = ids
            segments[where][span] = slot + 1
            positions[where][span] = np.arange(len(ids))
            starts[row] += len(ids)
            ends[where][slot] = starts[row] - 1
        flat = place[:, 0] * to.texts_a_row + place[:, 1]
        asked[shard], answers[shard] = flat[: asked.shape[1]], flat[asked.shape[1] :]
    joined = (part.reshape(to.chunks, to.rows, -1) for part in (tokens, segments, positions, ends))
    return Batch._make([*joined, asked, answers])


def _part(texts: Sequence[list[int]], shard: int, shards: int) -> Sequence[list[int]]:
    size = len(texts) // shards
    return texts[shard * size : (shard + 1) * size]
