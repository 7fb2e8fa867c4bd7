import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from e5jax.data.records import Example, check_example, parse_example
from e5jax.errors import ConfigError

LINE = {"query": "q", "positives": ["p"]}
WHOLE = Example("7", "q é😀", ("p1", "p2\n"), ("n",), "task", "zh-Hant", "set", (0.5, -1.0), (3.0,))

words = st.text(
    st.characters(exclude_categories=("Cs",), exclude_characters="\0"), min_size=1
).filter(str.strip)
score = st.floats(allow_nan=False, allow_infinity=False)


@st.composite
def examples(draw) -> Example:
    positives, negatives = (
        draw(st.lists(words, min_size=1, max_size=3)),
        draw(st.lists(words, max_size=3)),
    )
    scores = [
        draw(st.one_of(st.just([]), st.lists(score, min_size=len(t), max_size=len(t))))
        for t in (positives, negatives)
    ]
    texts = draw(words), draw(words), tuple(positives), tuple(negatives)
    return Example(
        *texts,
        draw(words),
        draw(st.sampled_from(["", "en", "zh-Hant"])),
        draw(words),
        *map(tuple, scores),
    )


@settings(derandomize=True, deadline=None, max_examples=300)
@given(examples())
def test_what_is_written_is_read_back(example):
    line = example.to_json()
    assert "\n" not in line
    assert json.loads(line)["schema"] == 1
    assert parse_example(line.encode(), "x:1") == example


def test_only_query_and_positives_are_needed_and_the_place_is_the_id():
    assert parse_example(json.dumps(LINE), "x:1") == Example("x:1", "q", ("p",))


def test_texts_are_kept_with_their_scores():
    assert WHOLE.select([1], []) == WHOLE._replace(
        positives=("p2\n",), negatives=(), positive_scores=(-1.0,), negative_scores=()
    )
    assert WHOLE._replace(positive_scores=()).select([0], [0]).positive_scores == ()


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ({**LINE, "schema": 2}, "schema 2: this e5jax reads schema 1; convert the file"),
        ({**LINE, "schema": True}, "schema True"),
        (
            {"query": "q", "positive": "p"},
            'positive: the field is called positives and is a list: "positives"',
        ),
        ({**LINE, "positives": "p"}, "positives: must be a list"),
        ({**LINE, "positives": []}, "positives: missing or empty"),
        ({**LINE, "positives": ["p", " "]}, "positives: missing or empty"),
        (
            {**LINE, "positives": [["p"]]},
            "positives: must be a string, or contain strings: not list",
        ),
        (
            {**LINE, "negatives": [None]},
            "negatives: must be a string, or contain strings: not NoneType",
        ),
        ({"positives": ["p"]}, "query: missing or empty"),
        ({**LINE, "query": ["q"]}, "query: must be a string"),
        ({**LINE, "id": ""}, "id: missing or empty"),
        ({**LINE, "language": "English"}, "language: must be an ISO code"),
        ({**LINE, "colour": 1}, "unknown fields: colour; known are id, query"),
        (
            {**LINE, "positive_scores": [1, 2]},
            "positive_scores: needs one score per text: 2 scores, 1 texts",
        ),
        ({**LINE, "positive_scores": ["1"]}, "positive_scores: must be finite numbers"),
        ({**LINE, "positive_scores": [True]}, "positive_scores: must be finite numbers"),
        ({**LINE, "positive_scores": [10**400]}, "positive_scores: must be finite numbers"),
        ({**LINE, "positive_scores": 1}, "positive_scores: must be a list"),
        ({**LINE, "query": "a\0"}, "query: contains a NUL character"),
        (
            {**LINE, "negatives": ["a\ud800"]},
            "negatives: not Unicode text: lone surrogate at character 1",
        ),
        ("x", "not a JSON object"),
    ],
)
def test_a_wrong_field_is_refused_with_its_place_and_reason(line, reason):
    with pytest.raises(ConfigError) as caught:
        parse_example(json.dumps(line), "x:1")
    assert str(caught.value).startswith(f"x:1: {reason}")


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"not json", "not JSON"),
        (b'{"query": "\xff", "positives": ["p"]}', "not UTF-8: invalid start byte at byte 11"),
        (b'{"query": "\xed\xa0\x80", "positives": ["p"]}', "not UTF-8"),
        ('{"query": "q", "positives": ["p"]}'.encode("utf-16"), "not UTF-8"),
        (
            b'{"query": "q", "positives": ["p"], "positive_scores": [NaN]}',
            "not JSON: NaN is no number",
        ),
        (
            b'{"query": "q", "positives": ["p"], "positive_scores": [1e999]}',
            "positive_scores: must be finite",
        ),
        (
            b'{"query": "q", "query": "r", "positives": ["p"]}',
            "a name occurs twice in one object: 'query'",
        ),
        (b'{"query": ' + b"[" * 100_000, "nested too deeply"),
        (
            b'{"query": "q", "positives": ["p"], "positive_scores": [' + b"1" * 9_999 + b"]}",
            "not JSON",
        ),
    ],
)
def test_a_line_that_is_no_plain_json_is_refused(line, reason):
    with pytest.raises(ConfigError) as caught:
        parse_example(line, "x:1")
    assert str(caught.value).startswith(f"x:1: {reason}")


def test_a_good_example_passes_the_check_unchanged():
    assert check_example(WHOLE) == WHOLE
