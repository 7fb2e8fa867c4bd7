"""Texts are recognised by their ids: every text of the source below is different, and none is truncated."""

from collections import Counter
from typing import NamedTuple

import grain
import numpy as np
import pytest

from e5jax.config import Batch, Data, Loss, Tokens, Training
from e5jax.config.mixture import Dataset, Mixture
from e5jax.data.batches import batch_builder, batches_of, check_negatives, without_negatives
from e5jax.data.packing import Layout, pack
from e5jax.data.records import Batch as Rows
from e5jax.data.records import Example, Ids
from e5jax.data.sampler import open_sets
from e5jax.data.tokenizer import E5, Templates, TextTokenizer, train_tokenizer
from e5jax.errors import ConfigError
from e5jax.train.negatives import BatchInfo
from tests import tiny
from tests.train import exact

TASK = "Find the number"
COUNT = 12


class Texts(NamedTuple):
    """What one batch holds, as text."""

    queries: list[str]
    positives: list[str]
    negatives: list[str]


def example(i: int) -> Example:
    return Example(
        f"id{i}",
        f"query {i}",
        (f"answer {i}",),
        tuple(f"wrong {i} {letter}" for letter in "abcd"),
        TASK,
    )


def run(
    queries: int = 4,
    negatives: int = 2,
    chunks: int = 1,
    *,
    seed: int = 0,
    instructions: bool = True,
) -> Training:
    return Training(
        seed=seed,
        batch=Batch(queries, negatives, chunks),
        data=Data(instructions=instructions),
        tokens=Tokens(limit=64),
    )


@pytest.fixture(scope="module")
def tokenizer() -> TextTokenizer:
    corpus = [
        text
        for i in range(COUNT)
        for text in (TASK, example(i).query, *example(i).positives, *example(i).negatives)
    ]
    return TextTokenizer(train_tokenizer(corpus, 300), 1, 2, 64)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    file = tmp_path_factory.mktemp("data") / "train.jsonl"
    file.write_text("".join(example(i).to_json() + "\n" for i in range(COUNT)), encoding="utf-8")
    return file


@pytest.fixture
def make(path, tokenizer):
    """The batches of a training run over the first `count` examples."""

    def made(training: Training, count: int = COUNT):
        head = path.with_name(f"{count}.jsonl")
        head.write_text("".join(path.read_text().splitlines(keepends=True)[:count]))
        return batches_of([head], tokenizer, training)

    return made


@pytest.fixture
def make_from(tmp_path, tokenizer):
    """The batches of a training run over the given examples."""

    def made(examples, training: Training):
        file = tmp_path / "given.jsonl"
        file.write_text("".join(e.to_json() + "\n" for e in examples), encoding="utf-8")
        return batches_of([file], tokenizer, training)

    return made


@pytest.fixture
def read(tokenizer):
    """A batch as text."""
    known = [E5.put(example(i).query, task) for i in range(COUNT) for task in (TASK, None)]
    known += [text for i in range(COUNT) for text in (*example(i).positives, *example(i).negatives)]
    text_of = {tuple(ids): text for text, ids in zip(known, tokenizer(known), strict=True)}
    assert len(text_of) == len(known)

    def texts(batch) -> Texts:
        found = [
            [text_of[tuple(ids)] for ids in (one.query, *one.passages)]
            for one in tiny.unpack(batch)
        ]
        assert np.sum(batch.ends >= 0) == sum(map(len, found))
        negatives = [text for one in found for text in one[2:]]
        return Texts([one[0] for one in found], [one[1] for one in found], negatives)

    return texts


def numbers(texts: list[str]) -> list[int]:
    """Which example each text is from."""
    return [int(text.split("\nQuery: ")[-1].split()[1]) for text in texts]


def test_a_batch_is_the_same_on_every_call_in_any_order_and_in_a_new_object(make):
    first, again = make(run(seed=5)), make(run(seed=5))
    forwards = [first[i] for i in range(9)]
    backwards = [again[i] for i in reversed(range(9))][::-1]
    for a, b, c in zip(forwards, backwards, (first[i] for i in range(9)), strict=True):
        assert_equal(a, b)
        assert_equal(a, c)


def assert_equal(a, b) -> None:
    for part, other in zip(a, b, strict=True):
        np.testing.assert_array_equal(part, other)


def test_reading_ahead_on_a_thread_gives_the_batches_of_indexing(make):
    batches = make(run())
    ahead = grain.ReadOptions(num_threads=1, prefetch_buffer_size=2)
    found = list(batches.slice(slice(2, 8)).to_iter_dataset(ahead))
    assert len(found) == 6
    for number, batch in enumerate(found, 2):
        assert_equal(batch, batches[number])


def test_every_epoch_has_every_example_once_in_a_new_order(make, read):
    batches = make(run())
    epochs = [
        [n for i in range(3 * e, 3 * e + 3) for n in numbers(read(batches[i]).queries)]
        for e in range(3)
    ]
    assert [sorted(epoch) for epoch in epochs] == [list(range(COUNT))] * 3
    assert len({*map(tuple, epochs), tuple(range(COUNT))}) == 4


def test_no_batch_holds_an_example_twice_and_epochs_are_whole_when_batches_do_not_fill_them(
    make, read
):
    batches = make(run(queries=5, negatives=0))
    found = [numbers(read(batches[i]).queries) for i in range(60)]
    assert all(len(set(batch)) == 5 for batch in found)
    assert Counter(n for batch in found[:12] for n in batch) == dict.fromkeys(range(COUNT), 5)


def test_seeds_give_other_orders_and_other_negatives(make, read):
    first, second = make(run(queries=COUNT, seed=1)), make(run(queries=COUNT, seed=2))
    a, b = read(first[0]), read(second[0])
    assert a.queries != b.queries
    assert sorted(a.queries) == sorted(b.queries)
    assert sorted(a.negatives) != sorted(b.negatives)


def test_positives_and_negatives_are_those_of_their_queries(make, read):
    batches = make(run(queries=4, negatives=2, chunks=2))
    batch = batches[0]
    assert batch.tokens.shape == (2, 8, 64)
    texts = read(batch)
    order = numbers(texts.queries)
    assert texts.positives == [f"answer {n}" for n in order]
    assert numbers(texts.negatives) == [n for n in order for _ in range(2)]


@pytest.mark.parametrize("negatives", [1, 2, 4])
def test_negatives_are_different_ones_of_the_example_itself(negatives, make, read):
    batches = make(run(negatives=negatives))
    for i in range(6):
        texts = read(batches[i])
        for place, number in enumerate(numbers(texts.queries)):
            mine = texts.negatives[place * negatives : (place + 1) * negatives]
            assert set(mine) <= set(example(number).negatives)
            assert len(set(mine)) == negatives


def test_every_negative_is_chosen_in_some_epoch(make, read):
    batches = make(run(negatives=1))
    chosen = {text for i in range(120) for text in read(batches[i]).negatives}
    assert chosen == {text for i in range(COUNT) for text in example(i).negatives}


def test_every_positive_is_chosen_in_some_epoch_and_one_at_a_time(make_from, tokenizer):
    many = [
        example(i)._replace(positives=(f"answer {i}", f"other {i}", f"third {i}"))
        for i in range(COUNT)
    ]
    batches = make_from(many, run(queries=COUNT, negatives=0))
    known = {
        tuple(ids): text
        for e in many
        for text, ids in zip(e.positives, tokenizer(e.positives), strict=True)
    }
    assert len(known) == 3 * COUNT
    texts = [E5.put(e.query, TASK) for e in many]
    asked = {tuple(ids): text for text, ids in zip(texts, tokenizer(texts), strict=True)}
    counts = Counter()
    for i in range(60):
        examples = tiny.unpack(batches[i])
        found = [known[tuple(ids)] for one in examples for ids in one.passages]
        assert [E5.put(f"query {text.split()[-1]}", TASK) for text in found] == [
            asked[tuple(one.query)] for one in examples
        ]
        counts.update(found)
    assert set(counts) == {
        f"{word} {i}" for word in ("answer", "other", "third") for i in range(COUNT)
    }
    by_word = [
        sum(counts[f"{word} {i}"] for i in range(COUNT)) for word in ("answer", "other", "third")
    ]
    assert (
        min(by_word) > 180
    )  # 240 are expected each; a fair choice is below 180 once in a million times


def test_as_many_positives_are_taken_as_a_query_has_and_the_batch_has_places(make_from, tokenizer):
    words = ("answer", "other", "third")
    many = [
        example(i)._replace(positives=tuple(f"{word} {i}" for word in words[: 1 + i % 3]))
        for i in range(COUNT)
    ]
    training = run(queries=COUNT, negatives=1)
    training.batch.positives = 2
    batches = make_from(many, training)
    known = {
        tuple(ids): text
        for e in many
        for text, ids in zip(e.positives, tokenizer(e.positives), strict=True)
    }
    wrong = {tuple(ids) for e in many for ids in tokenizer(e.negatives)}
    counts = Counter()
    for i in range(30):
        for one in tiny.unpack(batches[i], 2):
            found = [known[tuple(ids)] for ids in one.passages[: one.positives]]
            number = int(found[0].split()[1])
            assert len(set(found)) == one.positives == min(2, 1 + number % 3)
            assert set(found) <= set(many[number].positives)
            assert [tuple(ids) in wrong for ids in one.passages[one.positives :]] == [True]
            counts.update(found)
    assert set(counts) == {text for e in many for text in e.positives}
    assert min(counts.values()) >= 10  # two of three in 30 batches: 20 are expected


def test_without_negatives_there_are_queries_and_positives_alone(make, read):
    texts = read(make(run(negatives=0))[0])
    assert texts.negatives == []
    assert numbers(texts.positives) == numbers(texts.queries)


@pytest.mark.parametrize("instructions", [True, False])
def test_instructions_are_on_queries_only_and_can_be_left_out(instructions, make, read):
    texts = read(make(run(instructions=instructions))[0])
    wanted = [E5.put(f"query {n}", TASK if instructions else None) for n in numbers(texts.queries)]
    assert texts.queries == wanted
    assert texts.queries[0].startswith("Instruct: ") is instructions
    assert not [text for text in (*texts.positives, *texts.negatives) if "Instruct" in text]


def test_instructions_do_not_change_which_examples_and_negatives_are_in_a_batch(make, read):
    a, b = (read(make(run(instructions=on))[4]) for on in (True, False))
    assert a._replace(queries=numbers(a.queries)) == b._replace(queries=numbers(b.queries))


def test_too_few_examples_are_refused_with_both_numbers(make):
    with pytest.raises(ConfigError) as caught:
        make(run(queries=COUNT + 1))
    for words in (f"config.batch.queries={COUNT + 1}", f"only {COUNT} examples", "lower queries"):
        assert words in str(caught.value)


def test_as_many_examples_as_queries_are_enough(make, read):
    batches = make(run(queries=COUNT, negatives=0))
    assert [sorted(numbers(read(batches[i]).queries)) for i in range(2)] == [list(range(COUNT))] * 2


def asks(query: int, *passages: int, in_batch: bool = True, positives: int = 1) -> Ids:
    """Texts of one token."""
    return Ids([query], [[text] for text in passages], 1.0, in_batch, positives)


def packed(ids: list[Ids]) -> Rows:
    """A batch with places for two positives and two hard negatives a query."""
    return pack(ids, Layout(1, 5 * len(ids), 8, 1, 1, 4, 2))


ALONE = {
    "one pair": (False, [asks(1, 11)]),
    "one query of two positives": (False, [asks(1, 11, 12, positives=2)]),
    "no negatives of its own": (False, [asks(1, 11), asks(2, 12), asks(3, 13, in_batch=False)]),
    "hard negatives like its positive": (
        True,
        [asks(1, 11), asks(2, 12), asks(3, 13, 13, 13, in_batch=False)],
    ),
    "hard negatives like its query": (
        True,
        [asks(1, 11), asks(2, 12), asks(3, 13, 3, in_batch=False)],
    ),
    "all others of its query": (True, [asks(3, 11), asks(3, 12), asks(3, 13)]),
    "all others of its second positive": (
        True,
        [asks(1, 13), asks(2, 13), asks(3, 11, 13, positives=2)],
    ),
    "all others of its query or positive": (
        True,
        [asks(3, 11, 12, positives=2), asks(2, 13), asks(3, 13)],
    ),
}


@pytest.mark.parametrize("name", ALONE)
def test_queries_without_any_negative_are_refused_by_name(name):
    masked, ids = ALONE[name]
    examples = [example(i)._replace(source="nli") for i in range(len(ids))]
    with pytest.raises(ConfigError) as caught:
        check_negatives(packed(ids), examples, 2, masked=masked)
    for words in (
        f" of the {len(ids)} queries",
        f"'id{len(ids) - 1}' (source 'nli')",
        "hard negatives",
    ):
        assert words in str(caught.value)
    assert ("config.loss.mask_duplicates" in str(caught.value)) == masked
    if masked:  # without it all have one
        check_negatives(packed(ids), examples, 2, masked=False)


@pytest.mark.parametrize("masked", [True, False])
def test_alone_are_those_to_whom_the_objective_gives_no_negative_in_any_direction(masked):
    random, found = np.random.default_rng(0), Counter()
    loss = Loss(
        mask_duplicates=masked,
        directions=("query_to_doc", "doc_to_query", "query_to_query", "doc_to_doc"),
    )
    for _ in range(300):
        count, texts = int(random.integers(1, 5)), int(random.integers(2, 9))
        ids = [
            asks(
                *random.integers(0, texts, 2 + more).tolist(),
                in_batch=bool(random.random() < 0.7),
                positives=int(random.integers(1, 2 + (more > 0))),
            )
            for more in random.integers(0, 3, count).tolist()
        ]
        batch = packed(ids)
        terms = BatchInfo._make(
            part.ravel()
            for part in (batch.temperatures, batch.in_batch, batch.query_texts, batch.passage_texts)
        )
        wanted = [exact.negatives(terms, loss, i, 2) for i in range(count)]
        none = without_negatives(batch, 2, masked=masked).tolist()
        assert none == [not by_direction["query_to_doc"] for by_direction in wanted]
        assert not [
            1
            for lonely, by_direction in zip(none, wanted, strict=True)
            if lonely and any(by_direction.values())
        ]
        found.update(none)
    assert min(found.values()) > 50


def test_one_text_is_no_negative_of_itself_under_another_instruction_or_template(
    tmp_path, tokenizer
):
    """Two sets with the same queries under two instructions; positives of one are queries of the other."""
    tasks = {"plain": "Find the number", "symmetric": "answer"}
    words = {name: [f"query {i}" for i in range(4)] for name in tasks}
    texts = {
        "plain": [(f"answer {i}", f"wrong {i % 2} a") for i in range(4)],
        "symmetric": [
            (f"query {i + 4}" if i % 2 else f"query {i - 1}", f"answer {i}") for i in range(1, 5)
        ],
    }
    sets, raw = {}, {}
    prefixes = Templates(document="wrong ")
    for name, task in tasks.items():
        file = tmp_path / f"{name}.jsonl"
        pairs = zip(words[name], texts[name], strict=True)
        file.write_text("".join(Example(q, q, (p,), (n,)).to_json() + "\n" for q, (p, n) in pairs))
        sets[name] = Dataset(
            (str(file),), instructions=(task,), symmetric=name == "symmetric", negatives=1
        )
        raw |= {prefixes.put(text, task): text for text in words[name]}
        raw |= {
            prefixes.put(text, task if name == "symmetric" else None): text
            for pair in texts[name]
            for text in pair
        }
    loss = Loss(
        mask_duplicates=True,
        directions=("query_to_doc", "doc_to_query", "query_to_query", "doc_to_doc"),
    )
    training = Training(
        batch=Batch(8, 1),
        tokens=Tokens(limit=64, document="wrong "),
        data=Data(mixture=Mixture(sets)),
        loss=loss,
    )
    reads = TextTokenizer(tokenizer.tokenizer, 1, 2, 64, templates=prefixes)
    batch = batch_builder(
        training.data.mixture, open_sets(training.data.mixture, training), reads, training
    )(0)

    text_of = {tuple(ids): text for ids, text in zip(reads(list(raw)), raw.values(), strict=True)}
    assert len(text_of) == len(raw)
    examples = tiny.unpack(batch)
    strings = (
        [text_of[tuple(one.query)] for one in examples],
        [text_of[tuple(ids)] for one in examples for ids in one.passages],
    )
    names = sorted({*strings[0], *strings[1]})
    by_string = BatchInfo(
        batch.temperatures.ravel(),
        batch.in_batch.ravel(),
        *(np.array([names.index(t) for t in s]) for s in strings),
    )
    by_number = by_string._replace(
        queries=batch.query_texts.ravel(), passages=batch.passage_texts.ravel()
    )
    assert sorted(strings[0]) == sorted(2 * words["plain"])
    for query in range(8):
        expected = exact.negatives(by_string, loss, query, 1)
        assert exact.negatives(by_number, loss, query, 1) == expected
        assert strings[0][query] not in [strings[0][other] for other in expected["query_to_query"]]


def test_a_batch_of_one_pair_is_refused(make):
    with pytest.raises(ConfigError, match="1 of the 1 queries of a batch have no negative"):
        make(run(queries=1, negatives=0))[0]
