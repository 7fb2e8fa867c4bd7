"""Scores of a teacher: found by record and text, wrong lines named."""

import json

import pytest

from e5jax.errors import ConfigError
from e5jax.mine.corpus import key
from e5jax.mine.teacher import Teacher
from tests.mine import small
from tests.mine.test_mine import digest


def test_scores_are_those_of_the_record_and_the_text(tmp_path):
    lines = [
        {"id": "b", "text": "one", "score": 1},
        {"id": "a", "hash": digest("two").upper(), "score": -2.5},
        {"id": "a", "text": "über", "score": 3, "reason": "a judge's own words"},
        {"id": "b", "hash": digest("one"), "score": 1.0},
    ]
    teacher = Teacher(small.write(tmp_path / "s.jsonl", lines))
    assert teacher.of("a") == {key("two"): -2.5, key("über"): 3.0}
    assert teacher.of("b") == {key("one"): 1.0}
    assert teacher.of("c") == {}
    assert (teacher.lowest, teacher.highest) == (-2.5, 3.0)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"id": "a", "text": "x", "score": NaN}', "NaN is no number"),
        ('{"id": "a", "text": "x", "score": "1"}', "score: must be a finite number"),
        ('{"id": "a", "text": "x", "score": true}', "score: must be a finite number"),
        ('{"id": "a", "text": "x", "score": 1' + "0" * 400 + "}", "score: must be a finite number"),
        ('{"id": "a", "text": "x"}', "score: must be a finite number"),
        ('{"id": 3, "text": "x", "score": 1}', "id: must be the id of a record"),
        ('{"text": "x", "score": 1}', "id: must be the id of a record"),
        ('{"id": "a", "score": 1}', "needs either text or hash"),
        ('{"id": "a", "text": "x", "hash": "00", "score": 1}', "needs either text or hash"),
        ('{"id": "a", "text": ["x"], "score": 1}', "text: must be a string"),
        ('{"id": "a", "hash": "0011", "score": 1}', "hash: must be the 16 hexadecimal digits"),
        ('{"id": "a", "hash": 12, "score": 1}', "hash: must be the 16 hexadecimal digits"),
        ('{"id": "a", "hash": "no digits", "score": 1}', "hash: must be the 16 hexadecimal digits"),
        ('{"id": "a", "text": "same", "score": 2}', "another score for the pair of .*:1;"),
        ("[1]", "not a JSON object"),
    ],
)
def test_a_wrong_line_is_named_by_its_number(line, reason, tmp_path):
    first = json.dumps({"id": "a", "text": "same", "score": 1})
    (tmp_path / "s.jsonl").write_text(f"{first}\n\n{line}\n")
    with pytest.raises(ConfigError, match=rf"s\.jsonl:3: .*{reason}"):
        Teacher(tmp_path / "s.jsonl")


def test_a_file_without_scores_is_refused(tmp_path):
    (tmp_path / "s.jsonl").write_text("\n")
    with pytest.raises(ConfigError, match="no scores in it"):
        Teacher(tmp_path / "s.jsonl")
