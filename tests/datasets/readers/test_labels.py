"""Labels and scores of pairs: what is no positive pair is rejected, whatever the format, unless a threshold says otherwise."""

import json
import math

import pyarrow
import pyarrow.parquet as pq
import pytest

from e5jax.cli import main
from e5jax.datasets.readers.formats import read
from e5jax.datasets.readers.result import Options, Rejected
from e5jax.errors import ConfigError

MATCHES = [1, 1.0, True, "1", "1.0", "true"]
NONE = [0, -1, 0.0, False, "0", "-1", "False"]  # say that there is no match
UNCLEAR = [0.3, 2, 4.8, "0.5", -math.pi]
WRONG = ["entailment", "", None, [1]]


def outcomes(path, threshold=None, name="auto"):
    return list(read(path, name, Options(threshold=threshold)))


def jsonl(path, label, **more):
    path.write_text(json.dumps({"anchor": "a", "positive": "b", "label": label} | more) + "\n")
    return path


@pytest.mark.parametrize("label", [*MATCHES, *NONE, *UNCLEAR, *WRONG])
def test_only_the_label_1_makes_a_positive(label, tmp_path):
    (outcome,) = outcomes(jsonl(tmp_path / "x.jsonl", label))
    if label in MATCHES:
        assert not isinstance(outcome, Rejected)
        assert outcome.positives == ("b",)
    else:
        assert isinstance(outcome, Rejected)
        reasons = {"label says no match": [*NONE, -math.pi], "label is not a number": WRONG}
        assert outcome.kind == next(
            (kind for kind, labels in reasons.items() if label in labels), "label needs a threshold"
        )


@pytest.mark.parametrize(
    "name",
    ["label", "labels", "score", "similarity_score", "similarity", "relevance", "is_duplicate"],
)
@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".tsv", ".parquet"])
def test_every_format_with_columns_heeds_labels_by_their_usual_names(name, suffix, tmp_path):
    path = tmp_path / f"x{suffix}"
    rows = [{"anchor": f"a{n}", "positive": "b", name: value} for n, value in enumerate([0, 1, -1])]
    if suffix == ".parquet":
        pq.write_table(pyarrow.Table.from_pylist(rows), path)
    elif suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        mark = "," if suffix == ".csv" else "\t"
        path.write_text(
            "".join(
                mark.join(map(str, row)) + "\n"
                for row in [rows[0], *(row.values() for row in rows)]
            )
        )
    found = outcomes(path)
    assert [getattr(outcome, "query", None) for outcome in found] == [None, "a1", None]
    assert [outcome.reason for outcome in found if isinstance(outcome, Rejected)] == [
        f"label says no match: {name} is 0",
        f"label says no match: {name} is -1",
    ]


@pytest.mark.parametrize(
    ("threshold", "kept"), [(0.8, [0.8, 5]), (0.0, [0, 0.8, 5]), (-2.0, [-1, 0, 0.8, 5]), (6.0, [])]
)
def test_a_threshold_is_the_least_score_of_a_positive(threshold, kept, tmp_path):
    scores = [-1, 0, 0.8, 5]
    path = tmp_path / "x.jsonl"
    path.write_text(
        "".join(
            json.dumps({"anchor": str(score), "positive": "b", "score": score}) + "\n"
            for score in scores
        )
    )
    found = outcomes(path, threshold)
    assert [float(outcome.query) for outcome in found if not isinstance(outcome, Rejected)] == kept
    assert {outcome.kind for outcome in found if isinstance(outcome, Rejected)} <= {
        "label is below the threshold"
    }


def test_a_label_turns_what_looks_like_the_mix_into_pairs_and_the_mix_itself_refuses_it(tmp_path):
    path = tmp_path / "nli.jsonl"
    rows = [
        {"query": f"q{label}", "positive": "p", "negative": "n", "label": label} for label in (1, 0)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    good, bad = outcomes(path)
    assert (good.query, good.negatives) == ("q1", ("n",))
    assert isinstance(bad, Rejected)
    assert {outcome.kind for outcome in outcomes(path, name="e5-mix")} == {
        "label in a format that has none"
    }


def test_a_column_may_be_named_as_the_label(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text("anchor,positive,good\na,b,0\nc,d,1\n")
    found = list(read(path, "auto", Options(columns={"label": "good"})))
    assert [isinstance(outcome, Rejected) for outcome in found] == [True, False]


def test_a_threshold_that_nothing_reads_is_refused(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_text('{"query": "q", "positives": ["p"]}\n')
    with pytest.raises(ConfigError, match="--threshold: e5jax has no columns"):
        outcomes(path, 0.5)
    path.write_text('{"anchor": "q", "positive": "p"}\n')
    assert [outcome.kind for outcome in outcomes(path, 0.5)] == ["columns"]


@pytest.mark.parametrize(
    ("name", "file", "line", "reason"),
    [
        ("rocketqa", "x.tsv", "q\tt\tp\tt\tn\t1\n", "label is not 0: '1'"),
        (
            "votes",
            "x.jsonl",
            '{"input": "q", "output": [{"answer": "a", "meta": {"score": -3}}]}\n',
            "votes are against every answer",
        ),
    ],
)
def test_formats_with_marks_of_their_own_heed_them(name, file, line, reason, tmp_path):
    (tmp_path / file).write_text(line)
    (outcome,) = outcomes(tmp_path / file, name=name)
    assert isinstance(outcome, Rejected)
    assert reason in outcome.reason


def test_the_command_says_what_it_left_out_and_takes_a_threshold(tmp_path, capsys):
    path = tmp_path / "x.jsonl"
    path.write_text(
        '{"anchor": "a cat", "positive": "a dog", "label": 0}\n{"anchor": "x", "positive": "y", "label": 1}\n'
    )
    words = ["data", "convert", f"--input={path}", f"--output={tmp_path / 'y.jsonl'}"]
    assert main(words) == 0
    assert "1 examples, 1 rejected\n           1  label says no match\n" in capsys.readouterr().out
    assert (
        tmp_path / "y.rejects.txt"
    ).read_text() == f"{path}:1: label says no match: label is 0\n"
    assert main([*words, "--threshold=0"]) == 0
    assert "2 examples, 0 rejected" in capsys.readouterr().out
    assert main([*words, "--threshold=nan"]) == 3
    assert "--threshold=nan: must be a number" in capsys.readouterr().err
