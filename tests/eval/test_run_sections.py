"""Sections of a run's report: training, lengths and examples."""

import json
import re

import pytest

from e5jax.eval.queries import QueryResults, Ranking
from e5jax.eval.run_sections import (
    Neighbour,
    Search,
    TrainingRun,
    length_section,
    read_metrics,
    read_searches,
    search_section,
    training_section,
)
from tests.beir import write_beir
from tests.eval.mteb_results import rows

HOSTILE = '</pre><script>alert("&")</script>'


def metrics(steps: int, **changed: float) -> list[dict[str, float]]:
    row = {
        "train/accuracy": 0.625,
        "train/step_seconds": 30.0,
        "train/pairs_per_second": 8.25,
        "train/tokens_per_second": 1234.0,
        "train/real_token_share": 0.875,
    }
    return [{"step": step, "train/loss": 3 - step / 100, **row, **changed} for step in range(steps)]


RUNS = [
    TrainingRun("stage 1", metrics(130), 1_234_567),
    TrainingRun("stage 2", metrics(4, **{"train/loss": 0.0625})),
]
SEARCH = Search(
    "Returns one.",
    [
        Neighbour("a.one", "def one(): ...", 0.75, True),
        Neighbour("b.two", "def two(): ...", 0.5, False),
    ],
    1,
)


def sections(runs=RUNS, searches=(SEARCH,)) -> str:
    return training_section(runs) + length_section([3, 5, 8], [10, 20]) + search_section(searches)


def test_key_figures_are_those_of_the_metrics():
    figures = {row[0]: row[1:] for row in rows(sections())}
    assert figures["Steps"] == ["130", "4"]
    assert figures["Time in steps"] == ["1 h 05 min", "2 min 00 s"]
    assert figures["Pairs per second (median)"] == ["8.2", "8.2"]
    assert figures["Tokens per second (median)"] == ["1,234", "1,234"]
    assert figures["Share of real tokens (median)"] == ["87.5%", "87.5%"]
    assert figures["Trained parameters"] == ["1,234,567", "–"]
    assert figures["Last loss"] == ["1.7100", "0.0625"]
    assert figures["Last accuracy"] == ["62.5%", "62.5%"]


def test_a_metric_that_is_missing_or_not_finite_is_left_out():
    text = sections(
        runs=[
            TrainingRun(
                "stage 1",
                [
                    {"step": 0},
                    {"step": 1, "train/loss": 0.5},
                    {"step": 2, "train/loss": float("nan")},
                ],
            )
        ]
    )
    figures = {row[0]: row[1:] for row in rows(text)}
    assert figures["Last loss"] == ["0.5000"]
    assert figures["Last accuracy"] == ["–"]
    assert "nan" not in text


def test_the_right_neighbour_is_marked_and_only_it():
    text = sections()
    marked = [
        summary for summary in re.findall(r"<summary>.*?</summary>", text) if "✓ right" in summary
    ]
    assert len(marked) == 1
    assert "a.one" in marked[0]
    assert "0.750" in marked[0]
    assert "at rank 1." in text


@pytest.mark.parametrize(
    "changed",
    [
        {"runs": [TrainingRun(HOSTILE, metrics(3)), TrainingRun("b", metrics(3))]},
        {"searches": [Search(HOSTILE, [], 1)]},
        {"searches": [Search("q", [Neighbour(HOSTILE, "text", 0.5, False)], 1)]},
        {"searches": [Search("q", [Neighbour("name", HOSTILE, 0.5, False)], 1)]},
    ],
)
def test_hostile_text_is_escaped(changed):
    text = sections(**changed)
    assert "<script" not in text
    assert "&lt;script&gt;" in text


def test_ids_are_unique():
    ids = re.findall(r'\bid="([^"]*)"', sections())
    assert len(ids) == len(set(ids))


def test_lengths_that_were_not_recorded_are_missing():
    assert "were not recorded" in length_section([], [])


def test_metrics_are_read_by_step_and_a_repeated_step_counts_once(tmp_path):
    lines = [
        {"step": 1, "train/loss": 2.0},
        {"step": 2, "train/loss": 1.5},
        {"step": 2, "train/loss": 1.0},
        {"step": 0, "train/loss": 3.0},
    ]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert [row["train/loss"] for row in read_metrics(tmp_path / "metrics.jsonl")] == [
        3.0,
        2.0,
        1.0,
    ]


def test_a_damaged_line_of_metrics_is_left_out_and_named(tmp_path, capsys):
    path = tmp_path / "metrics.jsonl"
    path.write_text(
        '{"step": 1, "train/loss": 2.0}\n{"step": 2, "tra\n{"step": 3, "train/loss": 1.0}\n'
    )
    assert [row["step"] for row in read_metrics(path)] == [1, 3]
    assert f"{path}:2: damaged, left out" in capsys.readouterr().out


def test_examples_are_those_of_the_evaluation_from_the_easiest_query_to_the_hardest(tmp_path):
    names = [f"f{number}" for number in range(8)]
    heldout = write_beir(
        tmp_path / "heldout",
        {name: f"code of {name}" for name in names},
        {name: f"words of {name}" for name in names},
        [f"{name} {name} 1" for name in names],
    )
    # f0 is the hardest, which has no rank; the others have ranks from 7 down to 1.
    rankings = {
        each: Ranking(8 - number if number else None, [("f1", 0.5)])
        for number, each in enumerate(names)
    }
    record = QueryResults({}, {"test/default": rankings})
    record.write(tmp_path, "heldout", rankings=True)
    shown = read_searches(heldout, tmp_path)
    assert [(search.query, search.rank) for search in shown] == [
        (f"words of f{8 - rank}", rank) for rank in (1, 2, 3, 4, 5, 6)
    ]
    assert shown[0].neighbours == [Neighbour("f1", "code of f1", 0.5, relevant=False)]
    assert read_searches(heldout, tmp_path / "none") == []
