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
from e5jax.records import Batch, Ids


class Layout(NamedTuple):
    """The shape of a batch."""

    chunks: int
    rows: int  # a chunk, over all shards
    width: int  # tokens a row
    texts_a_row: int
    shards: int
    passages: int  # a query, at most


class Rows(NamedTuple):
    """What is computed of a batch, as in `Batch`."""

    tokens: Int[np.ndarray, "c n t"]
    segments: Int[np.ndarray, "c n t"]
    positions: Int[np.ndarray, "c n t"]
    ends: Int[np.ndarray, "c n s"]


def layout(batch: BatchConfig, limit: int) -> Layout:
    """The layout of batches whose texts have at most `limit` tokens: as many rows as the worst of them needs."""
    rows = -(-batch.texts // (batch.shards * batch.chunks * batch.sure(limit)))  # a chunk and shard, rounded up
    return Layout(batch.chunks, rows * batch.shards, batch.width(limit), batch.texts_a_row, batch.shards, 1 + batch.negatives)


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


def pack(examples: Sequence[Ids], to: Layout) -> Batch:
    """Lays examples out, as many to each shard, in their order."""
    each = len(examples) // to.shards
    parts = [examples[shard * each : (shard + 1) * each] for shard in range(to.shards)]
    rows, places = fill([[*(one.query for one in part), *(text for one in part for text in one.passages)] for part in parts], to)
    counts = np.array([len(one.passages) for one in examples]).reshape(to.shards, each, 1)
    passages = np.full((to.shards, each, to.passages), -1, np.int32)
    passages[np.arange(to.passages) < counts] = np.concatenate([own[each:] for own in places])
    queries = np.stack([own[:each] for own in places])
    temperatures = np.array([one.temperature for one in examples], np.float32).reshape(queries.shape)
    in_batch = np.array([one.in_batch for one in examples], np.bool_).reshape(queries.shape)
    return Batch(*rows, queries, passages.reshape(to.shards, -1), temperatures, in_batch)


def fill(shards: Sequence[Sequence[list[int]]], to: Layout) -> tuple[Rows, list[Int[np.ndarray, " texts"]]]:
    """The rows, and for every text of each shard its flat index, as in `Batch.queries`."""
    rows = to.rows // to.shards
    wide, slots = (to.chunks, to.shards, rows, to.width), (to.chunks, to.shards, rows, to.texts_a_row)
    tokens, segments, positions = (np.zeros(wide, np.int32) for _ in range(3))
    ends = np.full(slots, -1, np.int32)
    places = []
    for shard, own in enumerate(shards):
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
        places.append((place[:, 0] * to.texts_a_row + place[:, 1]).astype(np.int32))
    return Rows._make(part.reshape(to.chunks, to.rows, -1) for part in (tokens, segments, positions, ends)), places
