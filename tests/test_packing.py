"""Packing: every text once and whole, in a shape that never changes, in the same place on every machine."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from e5jax.config import Batch
from e5jax.packing import Layout, deal, digest, first_fit_decreasing, layout, pack
from e5jax.records import Ids
from tests import tiny

WIDTH = 12
ids = st.lists(st.integers(0, 99), min_size=1, max_size=WIDTH)


@st.composite
def batches(draw: st.DrawFn) -> tuple[list[Ids], Layout]:
    shards, count, chunks, slots = (draw(st.integers(1, most)) for most in (3, 3, 4, 5))
    queries, each = shards * count * chunks, draw(st.integers(1, 3))
    example = st.builds(Ids, ids, st.lists(ids, min_size=1, max_size=each), st.sampled_from([0.5, 2.0]), st.booleans())
    examples = draw(st.lists(example, min_size=queries, max_size=queries))
    return examples, Layout(chunks, queries * (1 + each) // chunks, WIDTH, slots, shards, each)


def pairs(texts: list[list[int]], passages: int) -> list[Ids]:
    """Examples of so many passages each, the texts of an example one behind the other."""
    groups = [texts[i : i + 1 + passages] for i in range(0, len(texts), 1 + passages)]
    return [Ids(query, own, 0.5, True) for query, *own in groups]


@given(batches())
def test_every_text_is_there_once_and_whole(drawn):
    examples, to = drawn
    batch = pack(examples, to)
    assert batch.tokens.shape == batch.segments.shape == batch.positions.shape == (to.chunks, to.rows, WIDTH)
    assert batch.ends.shape == (to.chunks, to.rows, to.texts_a_row)
    assert [part.dtype for part in batch] == [np.int32] * 6 + [np.float32, np.bool_]
    assert tiny.unpack(batch) == examples
    texts = [text for one in examples for text in (one.query, *one.passages)]
    assert np.sum(batch.segments > 0) == sum(map(len, texts))
    assert np.sum(batch.ends >= 0) == len(texts)
    assert not batch.tokens[batch.segments == 0].any()


@given(batches())
def test_a_shard_is_laid_out_from_its_own_texts_alone(drawn):
    examples, to = drawn
    whole = pack(examples, to)
    rows, each = to.rows // to.shards, len(examples) // to.shards
    for shard in range(to.shards):
        alone = pack(examples[shard * each :][:each], to._replace(rows=rows, shards=1))
        for part, expected in zip(whole[:4], alone[:4], strict=True):
            np.testing.assert_array_equal(part[:, shard * rows : (shard + 1) * rows], expected)
        for part, expected in zip(whole[4:], alone[4:], strict=True):
            np.testing.assert_array_equal(part[shard], expected[0])


@given(st.integers(1, 6), st.integers(1, 8), st.data())
def test_every_example_is_dealt_once_and_keeps_its_order_inside_a_shard(shards, each, data):
    count = shards * each
    lengths = np.array(data.draw(st.lists(st.integers(1, 99), min_size=count, max_size=count)))
    order = deal(lengths, shards)
    assert sorted(order) == list(range(count))
    assert all(list(part) == sorted(part) for part in order.reshape(shards, each))
    sums = lengths[order].reshape(shards, each).sum(axis=1)
    assert sums.max() - sums.min() <= lengths.max()  # a shard is ahead by less than one example


@given(st.lists(st.integers(1, WIDTH), min_size=1, max_size=40), st.integers(1, 6))
def test_first_fit_decreasing_is_what_its_name_says(lengths, most):
    wanted, rows = {}, []  # brute force: every row as the list of its lengths
    for text in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        fits = (i for i, row in enumerate(rows) if sum(row) + lengths[text] <= WIDTH and len(row) < most)
        row = next(fits, len(rows))
        if row == len(rows):
            rows.append([])
        wanted[text] = (row, len(rows[row]))
        rows[row].append(lengths[text])
    found = first_fit_decreasing(np.array(lengths), np.zeros(len(lengths), int), WIDTH, most)
    assert [tuple(place) for place in found] == [wanted[i] for i in range(len(lengths))]


def test_texts_fill_the_leading_chunks():
    short = pairs([[1, 5, 2]] * 16, 1)
    batch = pack(short, Layout(chunks=4, rows=4, width=WIDTH, texts_a_row=4, shards=2, passages=1))
    assert np.any(batch.ends >= 0, axis=(1, 2)).tolist() == [True, False, False, False]


@given(st.data(), st.integers(1, 7), st.integers(0, 2), st.integers(1, 4), st.integers(1, 3), st.integers(1, 4))
def test_rows_hold_any_batch(data, queries, negatives, chunks, slots, times):
    config = Batch(queries=queries, negatives=negatives, chunks=chunks, row_tokens=times * WIDTH, texts_a_row=slots)
    to = layout(config, WIDTH)
    assert to.chunks * to.rows * min(times, slots) >= config.texts > (to.chunks * to.rows - chunks) * min(times, slots)
    lengths = data.draw(st.lists(st.integers(1, WIDTH), min_size=config.texts, max_size=config.texts))
    examples = pairs([[number] * length for number, length in enumerate(lengths)], 1 + negatives)
    assert tiny.unpack(pack(examples, to)) == examples


@pytest.mark.parametrize("slots", [1, 3])
def test_texts_of_full_length_fit(slots):
    full = pairs([[7] * WIDTH] * 12, 2)
    batch = pack(full, Layout(chunks=3, rows=4, width=WIDTH, texts_a_row=slots, shards=2, passages=2))
    assert np.all(batch.segments == 1)
    assert tiny.unpack(batch) == full


def test_a_batch_is_known_again_by_its_hash_on_every_machine():
    batch = tiny.batch(8, 2, 2, shards=4, texts_a_row=3, change=tiny.mixed)
    assert digest(batch) == digest(tiny.batch(8, 2, 2, shards=4, texts_a_row=3, change=tiny.mixed)) == "24a31112bd6ab371"
    assert digest(batch._make(part.astype(part.dtype.newbyteorder(">")) for part in batch)) == digest(batch)
    assert digest(batch._make(np.asfortranarray(part) for part in batch)) == digest(batch)


@pytest.mark.parametrize("part", tiny.batch(4, 1, 1)._fields)
def test_one_number_of_a_batch_changes_its_hash(part):
    batch = tiny.batch(4, 1, 1)
    changed = getattr(batch, part).copy()
    changed.flat[-1] = changed.flat[-1] != 1
    assert digest(batch._replace(**{part: changed})) != digest(batch)
