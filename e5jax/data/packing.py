"""Texts into rows: first-fit-decreasing, one fixed shape, a layout that no machine influences.

A batch is `[chunks, rows, width]` tokens. The examples are dealt to `shards` virtual shards, equally
many to each and of about equal total length, and each shard packs its own texts into its own rows
of every chunk. Hosts and devices take whole shards, so neither their number nor their order changes
where a text is. There are enough rows for texts of any lengths.
"""

import hashlib
from collections.abc import Hashable, Sequence
from itertools import chain
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int

from e5jax.config import Batch as BatchConfig
from e5jax.data.records import Batch, Ids

# Segment of tokens at the start of a row that every text of the row attends to; 0 is padding, and
# texts count from 1.
SHARED = -1
DIGITS = 16  # of a batch's digest: two of a billion batches collide once in 37 runs


class Layout(NamedTuple):
    """The shape of a batch."""

    chunks: int
    rows: int  # per chunk, over all shards
    width: int  # tokens per row
    texts_a_row: int
    shards: int
    passages: int  # per query, at most
    positives: int = 1  # of the passages


class Rows(NamedTuple):
    """The packed texts, as in `Batch`."""

    tokens: Int[np.ndarray, "c n t"]
    segments: Int[np.ndarray, "c n t"]
    positions: Int[np.ndarray, "c n t"]
    ends: Int[np.ndarray, "c n s"]


def layout(batch: BatchConfig, limit: int) -> Layout:
    """Returns the layout of batches whose texts have at most `limit` tokens.

    It has enough rows for the worst case.
    """
    rows = -(-batch.texts // (batch.shards * batch.chunks * batch.sure(limit)))
    return Layout(
        batch.chunks,
        rows * batch.shards,
        batch.width(limit),
        batch.texts_a_row,
        batch.shards,
        batch.positives + batch.negatives,
        batch.positives,
    )


def digest(batch: Batch) -> str:
    """Returns the start of a batch's SHA-256, which is the same on every host and machine."""
    sha = hashlib.sha256()
    for name, part in batch._asdict().items():
        array = np.ascontiguousarray(part, part.dtype.newbyteorder("<"))
        sha.update(f"{name} {array.dtype.str} {array.shape}".encode())
        sha.update(array.data)
    return sha.hexdigest()[:DIGITS]


def deal(lengths: Int[np.ndarray, " n"], shards: int) -> Int[np.ndarray, " n"]:
    """Returns an order of the examples that gives each shard about the same total length.

    A pod waits for its fullest shard. The examples are dealt longest first, forwards and backwards
    in turn. Inside a shard they keep their order.
    """
    dealt = np.argsort(-lengths, kind="stable").reshape(-1, shards)
    dealt[1::2] = dealt[1::2, ::-1].copy()
    return np.sort(dealt.T, axis=1).ravel()


def first_fit_decreasing(
    lengths: Int[np.ndarray, " texts"], shards: Int[np.ndarray, " texts"], width: int, slots: int
) -> Int[np.ndarray, "texts 2"]:
    """Returns (row, slot) of each text in its shard.

    The longest text comes first, and each goes into the first row with room for it, in tokens and
    in slots. Texts of one length keep their order. They are placed together, in all shards at once:
    a row takes all that it can before the next one gets any, so that Python loops over lengths and
    not over texts.
    """
    order = np.lexsort((shards, -lengths))
    borders = np.flatnonzero(np.diff(lengths[order], prepend=-1, append=-1))
    room = np.full((int(shards.max(initial=0)) + 1, len(lengths)), width)
    free = np.full_like(room, slots)
    places = np.zeros((len(lengths), 2), np.int64)
    used = 0  # rows
    for start, stop in zip(borders[:-1].tolist(), borders[1:].tolist(), strict=True):
        texts = order[start:stop]
        length = int(lengths[texts[0]])
        count = np.bincount(shards[texts], minlength=len(room))
        # The rows in use, and new ones enough for all.
        rows = used - (-int(count.max()) // min(width // length, slots))
        fits = np.minimum(room[:, :rows] // length, free[:, :rows])
        added = np.clip(count[:, None] - (np.cumsum(fits, axis=1) - fits), 0, fits)
        shard_and_row = np.nonzero(added)
        times = added[shard_and_row]
        row = np.repeat(shard_and_row[1], times)
        first = np.repeat(np.cumsum(times) - times, times)
        places[texts, 0] = row
        places[texts, 1] = np.repeat(slots - free[shard_and_row], times)
        places[texts, 1] += np.arange(len(texts)) - first
        room[:, :rows] -= added * length
        free[:, :rows] -= added
        used = max(used, int(row.max()) + 1)
    return places


def pack(examples: Sequence[Ids], to: Layout) -> Batch:
    """Lays examples out, equally many to each shard, in their order."""
    each = len(examples) // to.shards
    shape = (to.shards, each)
    parts = [examples[shard * each : (shard + 1) * each] for shard in range(to.shards)]
    texts = [
        [*(example.query for example in part), *chain(*(example.passages for example in part))]
        for part in parts
    ]
    rows, places = fill(texts, to)
    exists = _existing_passages(examples, to).reshape(*shape, -1)
    passages, passage_texts = (np.full(exists.shape, -1, np.int32) for _ in range(2))
    passages[exists] = np.concatenate([own[each:] for own in places])
    query_texts, passage_texts[exists] = number_texts(examples)
    return Batch(
        *rows,
        queries=np.stack([own[:each] for own in places]),
        passages=passages.reshape(to.shards, -1),
        query_texts=query_texts.reshape(shape),
        passage_texts=passage_texts.reshape(to.shards, -1),
        temperatures=np.array([one.temperature for one in examples], np.float32).reshape(shape),
        in_batch=np.array([one.in_batch for one in examples], np.bool_).reshape(shape),
    )


def _existing_passages(examples: Sequence[Ids], to: Layout) -> Bool[np.ndarray, "queries passages"]:
    """Which places for positives, and after them for hard negatives, each example fills."""
    positives = np.array([[example.positives] for example in examples])
    negatives = np.array([[len(example.passages)] for example in examples]) - positives
    place = np.arange(to.passages)
    return np.where(place < to.positives, place < positives, place - to.positives < negatives)


def number_texts(
    examples: Sequence[Ids],
) -> tuple[Int[np.ndarray, " queries"], Int[np.ndarray, " passages"]]:
    """Returns a number for each query and each passage, the same for equal texts.

    Two texts are equal if their strings are, under any instruction, or their tokens. Different
    strings have the same tokens if truncation cuts off the difference or the tokenizer drops it:
    the model cannot distinguish them. A number covers all texts linked by such equalities.
    """
    ids = [tuple(example.query) for example in examples]
    ids += [tuple(text) for example in examples for text in example.passages]
    texts = [
        example.texts or (tuple(example.query), *map(tuple, example.passages))
        for example in examples
    ]
    strings = [own[0] for own in texts] + [text for own in texts for text in own[1:]]
    numbers = _linked(_numbered(ids), _numbered(strings))
    return numbers[: len(examples)], numbers[len(examples) :]


def _numbered(values: Sequence[Hashable]) -> Int[np.ndarray, " n"]:
    """Numbers values in the order of their first occurrence; equal values have equal numbers."""
    numbers: dict[Hashable, int] = {}
    return np.array([numbers.setdefault(value, len(numbers)) for value in values], np.int32)


def _linked(first: Int[np.ndarray, " n"], second: Int[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
    """Numbers the connected components of items that are equal in `first` or in `second`."""
    places, before = np.arange(len(first)), None
    while before is None or (places != before).any():
        before = places
        for numbers in (first, second):
            least = np.full(len(places), len(places))
            np.minimum.at(least, numbers, places)
            places = least[numbers]
    return _numbered(places.tolist())


def fill(
    shards: Sequence[Sequence[list[int]]], to: Layout
) -> tuple[Rows, list[Int[np.ndarray, " texts"]]]:
    """Packs the texts of each shard.

    Returns the rows, and for each shard the flat indices of its texts, as in `Batch.queries`.
    """
    texts = [ids for own in shards for ids in own]
    lengths = np.fromiter(map(len, texts), np.int64, len(texts))
    counts = [len(own) for own in shards]
    shard = np.repeat(np.arange(to.shards), counts)
    row, slot = first_fit_decreasing(lengths, shard, to.width, to.texts_a_row).T
    rows = to.rows // to.shards
    line = (row // rows * to.shards + shard) * rows + row % rows  # over all chunks and shards
    index = (row * to.texts_a_row + slot).astype(np.int32)
    return lay_out(texts, lengths, line, slot, to), np.split(index, np.cumsum(counts)[:-1])


def lay_out(
    texts: Sequence[list[int]],
    lengths: Int[np.ndarray, " texts"],
    line: Int[np.ndarray, " texts"],
    slot: Int[np.ndarray, " texts"],
    to: Layout,
) -> Rows:
    """Puts each text into its line (a row, counted over all chunks), in the order of slots."""
    order = np.lexsort((slot, line))
    long, filled = lengths[order], np.bincount(line, lengths, to.chunks * to.rows)
    before = np.cumsum(long) - long  # tokens of all earlier texts, in that order
    first = slot[order] == 0
    start = np.zeros(len(texts), np.int64)
    start[order] = before - before[first][np.cumsum(first) - 1]

    # Rows are filled from the left without gaps, so the real tokens are the used places, in order.
    real = np.arange(to.width) < filled.reshape(to.chunks, to.rows, 1)
    tokens, segments, positions = (np.zeros(real.shape, np.int32) for _ in range(3))
    count = int(long.sum())
    ids = chain.from_iterable([texts[text] for text in order])
    tokens[real] = np.fromiter(ids, np.int32, count)
    segments[real] = np.repeat((slot[order] + 1).astype(np.int32), long)
    positions[real] = np.arange(count, dtype=np.int32) - np.repeat(before.astype(np.int32), long)
    ends = np.full((to.chunks, to.rows, to.texts_a_row), -1, np.int32)
    ends.reshape(-1)[line * to.texts_a_row + slot] = start + lengths - 1
    return Rows(tokens, segments, positions, ends)
