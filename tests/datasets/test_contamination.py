import json
import random
from collections.abc import Iterator

import pytest

from e5jax.datasets.contamination import (
    NGRAM,
    Evaluation,
    beir_texts,
    listed_texts,
    without_contamination,
)
from e5jax.errors import ConfigError
from tests.data.examples import changed, example, sentence

WORDS = sentence(random.Random(9), 2_000)
QUESTION = " ".join(sentence(random.Random(1), 12))
DOCUMENT = " ".join(sentence(random.Random(2), 200))
OTHER = " ".join(sentence(random.Random(3), 200))
TEXTS = [
    ("set/queries/1", QUESTION),
    ("set/corpus/1", DOCUMENT),
    ("set/queries/2", "capital of france"),
]


@pytest.fixture
def evaluation() -> Iterator[Evaluation]:
    with Evaluation(TEXTS) as found:
        yield found


def clean(evaluation, *examples, **options):
    removed = []
    return [
        one.id for one in without_contamination(examples, evaluation, removed.append, **options)
    ], removed


def words(text, start, end):
    return " ".join(text.split()[start:end])


@pytest.mark.parametrize(
    ("text", "reason", "name"),
    [
        (f"  {QUESTION.upper()}? ", "equal", "set/queries/1"),
        ("Capital of France?", "equal", "set/queries/2"),
        (" ".join(changed(DOCUMENT.split(), random.Random(0), WORDS)), "near", "set/corpus/1"),
        (f"{OTHER} {QUESTION} {OTHER}", "contains", "set/queries/1"),
        (words(DOCUMENT, 90, 130), "contained", "set/corpus/1"),
        (
            f"{words(DOCUMENT, 0, 80)} {words(OTHER, 0, 24)}",
            "contained",
            "set/corpus/1",
        ),  # 73 of 97 runs of eight words
    ],
)
@pytest.mark.parametrize("part", ["query", "positive", "negative"])
def test_what_matches_is_removed_and_said_why(evaluation, text, reason, name, part):
    texts = {"query": "what", "positive": OTHER, "negative": "no"} | {part: text}
    one = example("a", texts["query"], texts["positive"], (texts["negative"],), source="web")
    kept, removed = clean(evaluation, one, example("b", "what", OTHER))
    assert kept == ["b"]
    (found,) = removed
    assert (found.id, found.source, found.part, found.reason, found.matched_id) == (
        "a",
        "web",
        part,
        reason,
        name,
    )
    hit = evaluation.find(text)
    assert hit is not None
    assert found.similarity == hit.similarity
    assert (found.similarity == 1) == (
        reason == "equal" or text in (f"{OTHER} {QUESTION} {OTHER}", words(DOCUMENT, 90, 130))
    )
    assert " ".join(text.split()).startswith(found.excerpt)


@pytest.mark.parametrize(
    "text",
    [
        OTHER,
        "capital of spain",
        "the capital of france is paris, and it has been for a long time now",  # of a short text only the whole counts
        words(DOCUMENT, 50, 59),
        f"{words(DOCUMENT, 0, 80)} {words(OTHER, 0, 40)}",  # 73 of 113
    ],
)
def test_what_shares_little_stays(evaluation, text):
    assert clean(evaluation, example("a", text, text, (text,))) == (["a"], [])


def test_only_the_named_parts_are_looked_at(evaluation):
    one = example("a", "what", OTHER, (DOCUMENT,))
    assert clean(evaluation, one, parts=("query", "positive"))[0] == ["a"]
    assert clean(evaluation, one)[0] == []


def test_the_share_of_a_contained_text_is_that_of_its_ngrams():
    chooser = random.Random(5)
    for _ in range(30):
        own = words(DOCUMENT, 60, 60 + chooser.randint(12, 50)).split()
        own += chooser.choices(WORDS, k=chooser.randint(0, 10))
        grams = [
            {tuple(text[i : i + NGRAM]) for i in range(len(text) - NGRAM + 1)}
            for text in (own, DOCUMENT.split())
        ]
        share = len(grams[0] & grams[1]) / len(grams[0])
        with Evaluation(TEXTS, share=0.0001) as evaluation:
            found = evaluation.find(" ".join(own))
        assert found is not None
        assert (found.id, found.reason) == ("set/corpus/1", "contained")
        assert found.similarity == pytest.approx(share, abs=1e-12)


@pytest.mark.parametrize("first", ["half", "whole"])
def test_of_texts_that_share_runs_of_words_the_one_with_most_is_found(first):
    texts = [("half", f"{words(DOCUMENT, 0, 60)} {words(OTHER, 0, 60)}"), ("whole", DOCUMENT)]
    with Evaluation(sorted(texts, key=lambda text: text[0] != first), share=1.0) as evaluation:
        found = evaluation.find(words(DOCUMENT, 20, 100))
    assert found is not None
    assert (found.id, found.reason, found.similarity) == ("whole", "contained", 1.0)


def test_a_higher_threshold_lets_near_copies_pass():
    copy = " ".join(changed(DOCUMENT.split(), random.Random(0), WORDS))
    for threshold, found in [(0.6, True), (0.99, False)]:
        with Evaluation(TEXTS, threshold) as evaluation:
            assert (evaluation.find(copy) is not None) == found


def test_runs_of_eight_words_in_common_count_and_runs_of_seven_do_not():
    others = iter(sentence(random.Random(8), 100))
    for run, reason in [(7, None), (8, "contained")]:
        pieces = [
            [*DOCUMENT.split()[start : start + run], next(others)] for start in range(0, 100, 20)
        ]
        with Evaluation(TEXTS, share=0.01) as evaluation:
            found = evaluation.find(" ".join(word for piece in pieces for word in piece))
        assert (found and found.reason) == reason


def test_planted_texts_are_found_and_no_others():
    chooser = random.Random(6)
    texts = [(f"{i}", sentence(chooser, chooser.randint(3, 80))) for i in range(300)]
    long = [(name, text) for name, text in texts if len(text) >= 10]
    with Evaluation((name, " ".join(text)) for name, text in texts) as evaluation:
        assert len(evaluation) == 300
        assert all(evaluation.find(" ".join(text).title()) is not None for _, text in texts)
        near = [evaluation.find(" ".join(changed(text, chooser, WORDS))) for _, text in long]
        inside = [
            evaluation.find(" ".join(sentence(chooser, 150) + text + sentence(chooser, 150)))
            for _, text in long
        ]
        innocent = [
            evaluation.find(" ".join(sentence(chooser, chooser.randint(3, 80)))) for _ in range(300)
        ]
    assert sum(
        hit is not None and hit.id == name for hit, (name, _) in zip(near, long, strict=True)
    ) >= 0.97 * len(long)
    assert all(
        hit is not None and hit.id == name for hit, (name, _) in zip(inside, long, strict=True)
    )
    assert innocent == [None] * 300


def test_without_evaluation_texts_nothing_matches():
    with Evaluation([]) as evaluation:
        assert evaluation.find(DOCUMENT) is None


def write(folder, name, *values):
    (folder / name).write_text(
        "".join(f"{value if isinstance(value, str) else json.dumps(value)}\n" for value in values)
    )


def test_a_beir_folder_gives_queries_and_documents_with_titles(tmp_path):
    folder = tmp_path / "nq"
    folder.mkdir()
    write(folder, "queries.jsonl", {"_id": "q1", "text": "who", "metadata": {}})
    write(
        folder,
        "corpus.jsonl",
        {"_id": "d1", "title": "A", "text": "b"},
        {"_id": "d2", "title": "", "text": "c"},
        {"_id": "d3", "text": "d"},
    )
    expected = [
        ("nq/queries/q1", "who"),
        ("nq/corpus/d1", "A b"),
        ("nq/corpus/d2", "c"),
        ("nq/corpus/d3", "d"),
    ]
    assert list(beir_texts(folder)) == expected
    assert list(beir_texts(folder, documents=False)) == expected[:1]


@pytest.mark.parametrize("line", ["{", "[]", {"_id": "q"}, {"_id": 1, "text": "a"}, {"text": "a"}])
def test_a_bad_line_of_a_beir_folder_is_named(tmp_path, line):
    write(tmp_path, "queries.jsonl", {"_id": "q1", "text": "who"}, line)
    with pytest.raises(ConfigError, match=r"queries\.jsonl:2: "):
        list(beir_texts(tmp_path))


def test_a_folder_that_is_not_beir_is_an_error(tmp_path):
    with pytest.raises(ConfigError, match=r"no queries\.jsonl"):
        list(beir_texts(tmp_path))


def test_of_listed_texts_only_documents_are_left_out(tmp_path):
    kinds = {"a": {"kind": "query"}, "b": {"kind": "document"}, "c": {"kind": "text"}, "d": {}}
    write(
        tmp_path,
        "x.jsonl",
        *({"id": name, "text": f"text {name}", **kind} for name, kind in kinds.items()),
    )
    assert [name for name, _ in listed_texts(tmp_path / "x.jsonl")] == ["a", "b", "c", "d"]
    assert [name for name, _ in listed_texts(tmp_path / "x.jsonl", documents=False)] == [
        "a",
        "c",
        "d",
    ]
