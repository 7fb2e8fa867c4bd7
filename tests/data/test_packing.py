"""Packing: every text once and whole, in a shape that never changes, in the same place on every machine."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from e5jax.config import Batch
from e5jax.data import text_rows
from e5jax.data.packing import (
    SHARED,
    Layout,
    deal,
    digest,
    first_fit_decreasing,
    layout,
    number_texts,
    pack,
)
from e5jax.data.records import Ids
from e5jax.data.text_rows import calls
from tests import tiny

WIDTH = 12
ids = st.lists(st.integers(0, 99), min_size=1, max_size=WIDTH)


@st.composite
def batches(draw: st.DrawFn) -> tuple[list[Ids], Layout]:
    shards, count, chunks, slots = (draw(st.integers(1, most)) for most in (3, 3, 4, 5))
    queries, each = shards * count * chunks, draw(st.integers(1, 3))
    positives = draw(st.integers(1, each))
    sides = st.tuples(
        st.lists(ids, min_size=1, max_size=positives), st.lists(ids, max_size=each - positives)
    )
    example = st.builds(joined, ids, sides, st.sampled_from([0.5, 2.0]), st.booleans())
    examples = draw(st.lists(example, min_size=queries, max_size=queries))
    return examples, Layout(
        chunks, queries * (1 + each) // chunks, WIDTH, slots, shards, each, positives
    )


def joined(
    query: list[int],
    passages: tuple[list[list[int]], list[list[int]]],
    temperature: float,
    in_batch: bool,
) -> Ids:
    positives, negatives = passages
    return Ids(query, [*positives, *negatives], temperature, in_batch, len(positives))


def pairs(texts: list[list[int]], passages: int) -> list[Ids]:
    """Examples of so many passages each, the texts of an example one behind the other."""
    groups = [texts[i : i + 1 + passages] for i in range(0, len(texts), 1 + passages)]
    return [Ids(query, own, 0.5, True) for query, *own in groups]


@given(batches())
def test_every_text_is_there_once_and_whole(drawn):
    examples, to = drawn
    batch = pack(examples, to)
    assert (
        batch.tokens.shape
        == batch.segments.shape
        == batch.positions.shape
        == (to.chunks, to.rows, WIDTH)
    )
    assert batch.ends.shape == (to.chunks, to.rows, to.texts_a_row)
    assert [part.dtype for part in batch] == [np.int32] * 8 + [np.float32, np.bool_]
    assert tiny.unpack(batch, to.positives) == examples
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
        for name, expected in list(alone._asdict().items())[4:]:
            if not name.endswith("_texts"):  # what texts are the same is of the whole batch
                np.testing.assert_array_equal(getattr(whole, name)[shard], expected[0])


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
        fits = (
            i for i, row in enumerate(rows) if sum(row) + lengths[text] <= WIDTH and len(row) < most
        )
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


def test_texts_of_the_same_tokens_have_the_same_number_on_every_shard():
    texts = [[1, 7, 2], [1, 5, 2], [1, 7, 2], [1, 6, 2]]
    examples = [Ids(texts[i], [texts[1], *texts[3 : 3 + i % 2]], 0.05, True) for i in range(4)]
    batch = pack(
        examples, Layout(chunks=1, rows=12, width=WIDTH, texts_a_row=1, shards=2, passages=2)
    )
    assert batch.query_texts.tolist() == [[0, 1], [0, 2]]
    assert batch.passage_texts.tolist() == [[1, -1, 1, 2], [1, -1, 1, 2]]


def test_a_text_has_the_same_number_under_any_template_and_so_have_texts_read_as_the_same_tokens():
    examples = [
        Ids([1, 5, 7, 2], [[1, 8, 2], [1, 9, 2]], 0.05, True, texts=("query", "one", "other")),
        Ids([1, 6, 7, 2], [[1, 7, 2], [1, 4, 2]], 0.05, True, texts=("query", "query", "cut here")),
        Ids(
            [1, 3, 4, 2],
            [[1, 4, 2], [1, 3, 2]],
            0.05,
            True,
            texts=("and there", "and there", "nothing like them"),
        ),
    ]
    queries, passages = number_texts(examples)
    assert queries.tolist() == [0, 0, 1]
    assert passages.tolist() == [2, 3, 0, 1, 1, 4]


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=30))
def test_numbers_are_equal_where_a_chain_of_equal_strings_and_tokens_leads_from_one_text_to_the_other(
    texts,
):
    groups: list[set[tuple[int, int]]] = []
    for text in texts:
        like = [
            group
            for group in groups
            if any(text[0] == ids or text[1] == string for ids, string in group)
        ]
        groups = [group for group in groups if group not in like] + [{text}.union(*like)]
    queries, _ = number_texts(
        [Ids([ids], [], 0.05, True, texts=(str(string),)) for ids, string in texts]
    )
    expected = [
        next(place for place, group in enumerate(groups) if text in group) for text in texts
    ]
    assert (
        len(set(zip(queries.tolist(), expected, strict=True)))
        == len(set(queries.tolist()))
        == len(groups)
    )


@given(
    st.data(),
    st.integers(1, 7),
    st.integers(0, 2),
    st.integers(1, 4),
    st.integers(1, 3),
    st.integers(1, 4),
)
def test_rows_hold_any_batch(data, queries, negatives, chunks, slots, times):
    config = Batch(
        queries=queries,
        negatives=negatives,
        chunks=chunks,
        row_tokens=times * WIDTH,
        texts_a_row=slots,
    )
    to = layout(config, WIDTH)
    assert (
        to.chunks * to.rows * min(times, slots)
        >= config.texts
        > (to.chunks * to.rows - chunks) * min(times, slots)
    )
    lengths = data.draw(
        st.lists(st.integers(1, WIDTH), min_size=config.texts, max_size=config.texts)
    )
    examples = pairs([[number] * length for number, length in enumerate(lengths)], 1 + negatives)
    assert tiny.unpack(pack(examples, to)) == examples


@pytest.mark.parametrize("slots", [1, 3])
def test_texts_of_full_length_fit(slots):
    full = pairs([[7] * WIDTH] * 12, 2)
    batch = pack(
        full, Layout(chunks=3, rows=4, width=WIDTH, texts_a_row=slots, shards=2, passages=2)
    )
    assert np.all(batch.segments == 1)
    assert tiny.unpack(batch) == full


texts = st.lists(st.lists(st.integers(3, 5), min_size=1, max_size=40), max_size=60)


def unpacked(call: text_rows.Call) -> dict[int, list[int]]:
    """What the model sees of each text: the tokens of its segment behind those that are shared, at their positions."""
    tokens, segments, positions, ends = call.rows
    found = {}
    for text, place in zip(call.texts.tolist(), call.slots.tolist(), strict=True):
        row, slot = divmod(place, ends.shape[1])
        own = (segments[row] == slot + 1) | (segments[row] == SHARED)
        assert ends[row, slot] == np.flatnonzero(own)[-1]
        assert positions[row][own].tolist() == list(range(own.sum()))
        found[text] = tokens[row][own].tolist()
    return found


@given(
    texts,
    st.integers(0, 40),
    st.sampled_from([8, 64]),
    st.integers(1, 3),
    st.sampled_from([None, 50]),
)
def test_every_text_is_in_one_call_whole_and_behind_what_all_share(
    found, same, row, devices, window
):
    found = [[9] * same + text for text in found]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text_rows, "ROW", row)
        patch.setattr(text_rows, "SHORTEST_SHARED", 4)
        all_calls = list(calls(found, 80, 4 * row, devices, window))
    assert sum(len(call.texts) for call in all_calls) == len(found)
    assert {text: ids for call in all_calls for text, ids in unpacked(call).items()} == dict(
        enumerate(found)
    )
    for call in all_calls:
        tokens, _, _, ends = call.rows
        assert len(tokens) % devices == 0
        assert tokens.shape[1] <= 80
        assert np.sum(ends >= 0) == len(call.texts)
        assert (call.rows.segments[:, : call.shared] == SHARED).all()
        assert not (call.rows.segments[:, call.shared :] == SHARED).any()
        assert window is None or not call.shared or tokens.shape[1] <= window


def test_short_texts_behind_a_long_start_take_a_few_rows_of_one_shape():
    found = [[9] * 40 + [3 + number % 50, 2] for number in range(1_000)]
    shapes = [(call.rows.tokens.shape, call.shared) for call in calls(found, 512, 2_048, 1, None)]
    assert shapes == [((4, 512), 32)] * 5 + [
        ((1, 512), 32)
    ]  # 47 texts of 10 tokens in a row, where 12 were alone
    assert [call.shared for call in calls(found[:1], 512, 2_048, 1, None)] == [0]
    long = [
        [9] * 40 + [3 + number] * 300 for number in range(9)
    ]  # one a row, with or without its start
    assert {call.shared for call in calls(long, 512, 2_048, 1, None)} == {0}


def test_shorter_texts_fill_what_longer_ones_leave():
    lengths = [700, 600, *[100] * 40]
    found = [[number] * length for number, length in enumerate(lengths)]
    shapes = [call.rows.tokens.shape for call in calls(found, 4_096, 2_048, 1, None)]
    assert shapes == [
        (2, 1_024),
        (4, 512),
        (4, 512),
    ]  # 3 and 4 of the short ones went along; 33 are left for 7 rows


def test_a_batch_is_known_again_by_its_hash_on_every_machine():
    batch = tiny.batch(8, 2, 2, shards=4, texts_a_row=3, change=tiny.mixed)
    assert (
        digest(batch)
        == digest(tiny.batch(8, 2, 2, shards=4, texts_a_row=3, change=tiny.mixed))
        == "2f8215fbe6dba91c"
    )
    assert digest(
        batch._make(part.astype(part.dtype.newbyteorder(">")) for part in batch)
    ) == digest(batch)
    assert digest(batch._make(np.asfortranarray(part) for part in batch)) == digest(batch)


@pytest.mark.parametrize("part", tiny.batch(4, 1, 1)._fields)
def test_one_number_of_a_batch_changes_its_hash(part):
    batch = tiny.batch(4, 1, 1)
    changed = getattr(batch, part).copy()
    changed.flat[-1] = changed.flat[-1] != 1
    assert digest(batch._replace(**{part: changed})) != digest(batch)
