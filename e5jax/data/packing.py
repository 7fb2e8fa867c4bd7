"""Texts into rows: first-fit-decreasing, one fixed shape, and a layout that does not depend on the machine.

A batch is `[chunks, rows, width]` tokens. The examples are dealt to `shards` virtual shards, as many to each and about
as long, and each shard packs its own texts into its own rows of every chunk. Hosts and devices take whole shards, so
neither their number nor their order changes where a text lies. There are rows enough for texts of any lengths.
"""

import hashlib
from collections.abc import Hashable, Iterator, Sequence
from itertools import chain
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int

from e5jax.config import Batch as BatchConfig
from e5jax.data.records import Batch, Ids

ROW = 512  # tokens of a row that texts are encoded in, if none is longer
NARROWEST = 32  # tokens of a row, when there is that little to encode
SLOT = 8  # tokens: a row has room for one text per so many
SHORTEST_SHARED = 16  # tokens: what is shared is a multiple of it
SHARED = -1  # segment of tokens at the start of a row that every text of the row sees; 0 is padding, texts count from 1
DIGITS = 16  # of a batch's hash: two of a billion batches are alike once in 37 runs


class Layout(NamedTuple):
    """The shape of a batch."""

    chunks: int
    rows: int  # a chunk, over all shards
    width: int  # tokens a row
    texts_a_row: int
    shards: int
    passages: int  # a query, at most
    positives: int = 1  # of them


class Rows(NamedTuple):
    """What is computed of a batch, as in `Batch`."""

    tokens: Int[np.ndarray, "c n t"]
    segments: Int[np.ndarray, "c n t"]
    positions: Int[np.ndarray, "c n t"]
    ends: Int[np.ndarray, "c n s"]


def layout(batch: BatchConfig, limit: int) -> Layout:
    """The layout of batches whose texts have at most `limit` tokens: as many rows as the worst of them needs."""
    rows = -(
        -batch.texts // (batch.shards * batch.chunks * batch.sure(limit))
    )  # a chunk and shard, rounded up
    passages = batch.positives + batch.negatives
    return Layout(
        batch.chunks,
        rows * batch.shards,
        batch.width(limit),
        batch.texts_a_row,
        batch.shards,
        passages,
        batch.positives,
    )


def digest(batch: Batch) -> str:
    """By which a batch is known again: the start of its SHA-256, the same on every host and every kind of machine."""
    sha = hashlib.sha256()
    for name, part in batch._asdict().items():
        array = np.ascontiguousarray(part, part.dtype.newbyteorder("<"))
        sha.update(f"{name} {array.dtype.str} {array.shape}".encode())
        sha.update(array.data)
    return sha.hexdigest()[:DIGITS]


def deal(lengths: Int[np.ndarray, " n"], shards: int) -> Int[np.ndarray, " n"]:
    """An order of the examples in which each shard's part has about the same sum of lengths: a pod waits for its fullest shard.

    The examples are dealt longest first, forwards and backwards in turn. Inside a shard they keep the order given.
    """
    dealt = np.argsort(-lengths, kind="stable").reshape(-1, shards)
    dealt[1::2] = dealt[1::2, ::-1].copy()
    return np.sort(dealt.T, axis=1).ravel()


def first_fit_decreasing(
    lengths: Int[np.ndarray, " texts"], shards: Int[np.ndarray, " texts"], width: int, most: int
) -> Int[np.ndarray, "texts 2"]:
    """(row, slot) of each text in its shard: the longest first, each into the first row with `width` and a slot of `most` left.

    Texts of one length keep their order. They are placed together, in all shards at once: a row takes as many of them as it
    can before the next one gets any, so that Python counts lengths and not texts.
    """
    order = np.lexsort((shards, -lengths))
    borders = np.flatnonzero(np.diff(lengths[order], prepend=-1, append=-1))
    room = np.full((int(shards.max(initial=0)) + 1, len(lengths)), width)
    free = np.full_like(room, most)
    found = np.zeros((len(lengths), 2), np.int64)
    opened = 0
    for start, stop in zip(borders[:-1].tolist(), borders[1:].tolist(), strict=True):
        texts = order[start:stop]
        length = int(lengths[texts[0]])
        wanted = np.bincount(shards[texts], minlength=len(room))
        seen = opened - (
            -int(wanted.max()) // min(width // length, most)
        )  # rows: those in use, and new ones enough for all
        able = np.minimum(room[:, :seen] // length, free[:, :seen])
        takes = np.clip(wanted[:, None] - (np.cumsum(able, axis=1) - able), 0, able)
        places = np.nonzero(takes)
        times = takes[places]
        rows = np.repeat(places[1], times)
        found[texts, 0] = rows
        first = np.repeat(np.cumsum(times) - times, times)
        found[texts, 1] = np.repeat(most - free[places], times) + np.arange(len(texts)) - first
        room[:, :seen] -= takes * length
        free[:, :seen] -= takes
        opened = max(opened, int(rows.max()) + 1)
    return found


def pack(examples: Sequence[Ids], to: Layout) -> Batch:
    """Lays examples out, as many to each shard, in their order."""
    each = len(examples) // to.shards
    parts = [examples[shard * each : (shard + 1) * each] for shard in range(to.shards)]
    rows, places = fill(
        [
            [*(one.query for one in part), *(text for one in part for text in one.passages)]
            for part in parts
        ],
        to,
    )
    there = _there(examples, to).reshape(to.shards, each, -1)
    passages, passage_texts = (np.full(there.shape, -1, np.int32) for _ in range(2))
    passages[there] = np.concatenate([own[each:] for own in places])
    query_texts, passage_texts[there] = number_texts(examples)
    queries = np.stack([own[:each] for own in places])
    temperatures = np.array([one.temperature for one in examples], np.float32).reshape(
        queries.shape
    )
    in_batch = np.array([one.in_batch for one in examples], np.bool_).reshape(queries.shape)
    texts = query_texts.reshape(queries.shape), passage_texts.reshape(to.shards, -1)
    return Batch(*rows, queries, passages.reshape(to.shards, -1), *texts, temperatures, in_batch)


def _there(examples: Sequence[Ids], to: Layout) -> Bool[np.ndarray, "queries passages"]:
    """Which of its places for positives, and behind them for hard negatives, an example fills."""
    positives, texts = np.array([(one.positives, len(one.passages)) for one in examples])[
        :, :, None
    ].swapaxes(0, 1)
    place = np.arange(to.passages)
    return np.where(
        place < to.positives, place < positives, place - to.positives < texts - positives
    )


def number_texts(
    examples: Sequence[Ids],
) -> tuple[Int[np.ndarray, " queries"], Int[np.ndarray, " passages"]]:
    """A number for each text: the same for a text under any instruction, and for texts that are read as the same tokens.

    Two texts of the same tokens differ where truncation has cut them, or in what the tokenizer does not keep: the model cannot
    tell them apart. So a number stands for all texts that are linked by equal strings and equal tokens.
    """
    ids = [tuple(one.query) for one in examples] + [
        tuple(text) for one in examples for text in one.passages
    ]
    known = [one.texts or (tuple(one.query), *map(tuple, one.passages)) for one in examples]
    strings = [texts[0] for texts in known] + [text for texts in known for text in texts[1:]]
    numbers = _linked(_numbered(ids), _numbered(strings))
    return numbers[: len(examples)], numbers[len(examples) :]


def _numbered(values: Sequence[Hashable]) -> Int[np.ndarray, " n"]:
    """Equal values have equal numbers, counted in their order."""
    numbers: dict[Hashable, int] = {}
    return np.array([numbers.setdefault(value, len(numbers)) for value in values], np.int32)


def _linked(first: Int[np.ndarray, " n"], second: Int[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
    """Numbers that are equal where either of two numbers is, or a chain of such places lies between."""
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
    """The rows, and for every text of each shard its flat index, as in `Batch.queries`."""
    texts = [ids for own in shards for ids in own]
    lengths = np.fromiter(map(len, texts), np.int64, len(texts))
    shard = np.repeat(np.arange(to.shards), [len(own) for own in shards])
    row, slot = first_fit_decreasing(lengths, shard, to.width, to.texts_a_row).T
    rows = to.rows // to.shards
    line = (row // rows * to.shards + shard) * rows + row % rows  # over all chunks and shards
    where = (row * to.texts_a_row + slot).astype(np.int32)
    return lay(texts, lengths, line, slot, to), np.split(
        where, np.cumsum([len(own) for own in shards])[:-1]
    )


def lay(
    texts: Sequence[list[int]],
    lengths: Int[np.ndarray, " texts"],
    line: Int[np.ndarray, " texts"],
    slot: Int[np.ndarray, " texts"],
    to: Layout,
) -> Rows:
    """The rows, with each text in its line, of all chunks, behind those in lower slots."""
    in_row = np.lexsort((slot, line))
    long, filled = lengths[in_row], np.bincount(line, lengths, to.chunks * to.rows)
    before = np.cumsum(long) - long  # tokens of all earlier texts, in that order
    fresh = slot[in_row] == 0
    start = np.zeros(len(texts), np.int64)
    start[in_row] = before - before[fresh][np.cumsum(fresh) - 1]

    # Rows are filled from the left: their texts one behind the other are the places that are taken, in order.
    taken = np.arange(to.width) < filled.reshape(to.chunks, to.rows, 1)
    tokens, segments, positions = (np.zeros(taken.shape, np.int32) for _ in range(3))
    tokens[taken] = np.fromiter(
        chain.from_iterable([texts[text] for text in in_row]), np.int32, int(long.sum())
    )
    segments[taken] = np.repeat((slot[in_row] + 1).astype(np.int32), long)
    positions[taken] = np.arange(long.sum(), dtype=np.int32) - np.repeat(
        before.astype(np.int32), long
    )
    ends = np.full((to.chunks, to.rows, to.texts_a_row), -1, np.int32)
    ends.reshape(-1)[line * to.texts_a_row + slot] = start + lengths - 1
    return Rows(tokens, segments, positions, ends)


# --- texts that are only encoded ---------------------------------------------------------------------------------


class Call(NamedTuple):
    """Rows that are encoded at once."""

    rows: Rows  # without chunks: `[n t]` and `[n s]`
    texts: Int[np.ndarray, " texts"]  # places in the list
    slots: Int[np.ndarray, " texts"]  # where each lies among the n · s of the rows
    shared: int  # tokens at the start of each row that all of its texts start with


def calls(
    texts: Sequence[list[int]],
    limit: int,
    tokens: int,
    devices: int,
    window: int | None,
    causal: bool = True,
) -> Iterator[Call]:
    """Every text once, in rows of few shapes: about `tokens` a device and call, the widest rows first.

    Rows have ROW tokens, wider ones where texts are longer; shorter texts fill what these leave. What all texts
    start with, an instruction, is in a row once if that pays, and if no `window` of attention forgets it. Where attention is
    not `causal` it would see all texts of the row, and is in each of them.
    """
    lengths = np.fromiter(map(len, texts), np.int64, len(texts))
    left = np.argsort(-lengths, kind="stable")
    while len(left):
        long = lengths[left]
        width = _width(int(long[0]), int(long.sum()), limit)
        shared = (
            _shared(texts, long, width) if causal and (window is None or width <= window) else 0
        )
        slots = max(1, width // SLOT)
        row, slot = first_fit_decreasing(
            long - shared, np.zeros_like(left), width - shared, slots
        ).T
        # Two texts of more than half a row never share one, so these opened the first rows.
        count = int(row.max()) + 1 if width <= ROW else int(np.sum(long > width // 2))
        most = max(1, tokens // width) * devices
        whole, rest = divmod(count, most)
        last = min(most, devices * power_of_two(-(-rest // devices))) if rest else 0
        now = row < count
        own = (
            [texts[text][shared:] for text in left[now]]
            if shared
            else [texts[text] for text in left[now]]
        )
        to = Layout(1, whole * most + last, width - shared, slots, 1, 0)
        rows = Rows(*(part[0] for part in lay(own, long[now] - shared, row[now], slot[now], to)))
        if shared:
            rows = _behind(texts[0][:shared], rows)
        for start in range(0, to.rows, most):
            here = now & (row >= start) & (row < start + most)
            at = (row[here] - start) * slots + slot[here]
            yield Call(Rows(*(part[start : start + most] for part in rows)), left[here], at, shared)
        left = left[~now]


def _width(longest: int, total: int, limit: int) -> int:
    if longest > ROW:
        return min(power_of_two(longest), limit)
    return min(ROW, max(NARROWEST, power_of_two(total)))


def _shared(texts: Sequence[list[int]], lengths: Int[np.ndarray, " texts"], width: int) -> int:
    """How many tokens all texts have in common at their start, or 0 where it does not pay to encode them once a row."""
    first, last = (
        min(texts),
        max(texts),
    )  # in the order of words in a dictionary: these differ soonest
    same = next(
        (i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), len(first)
    )
    shared = min(same, int(lengths.min()) - 1) // SHORTEST_SHARED * SHORTEST_SHARED  # a shape each
    pays = (
        shared > 0
        and width <= ROW
        and width - shared >= 2 * (lengths.mean() - shared)
        and len(texts) > 1
    )
    return shared if pays else 0


def _behind(shared: list[int], rows: Rows) -> Rows:
    """The rows with these tokens at the start of each."""
    n, count = len(rows.tokens), len(shared)

    def widened(start: Sequence[int] | int, part: np.ndarray) -> np.ndarray:
        return np.concatenate(
            [np.broadcast_to(np.array(start, np.int32), (n, count)), part], axis=1
        )

    return Rows(
        widened(shared, rows.tokens),
        widened(SHARED, rows.segments),
        widened(range(count), np.where(rows.segments > 0, rows.positions + count, 0)),
        np.where(rows.ends >= 0, rows.ends + count, -1),
    )


def power_of_two(number: int) -> int:
    """The smallest power of two that is not below `number`."""
    return 1 << (number - 1).bit_length()
