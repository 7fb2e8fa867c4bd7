"""Sections of a run's report: training, lengths and examples."""

import json
import math
import re
from pathlib import Path

from e5jax.eval.queries import QueryResults, Ranking
from e5jax.eval.run_sections import (
    TrainingRun,
    length_section,
    read_metrics,
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
    TrainingRun("stage 2", metrics(4, **{"train/loss": 0.0625}), 1_000),
]


def write_heldout(folder: Path, rankings: dict[str, Ranking], prefix: str = "") -> Path:
    """Queries and documents f0 to f7, each document the answer to the query of its name."""
    names = [f"f{number}" for number in range(8)]
    QueryResults({}, {"test/default": rankings}).write(folder, "heldout", rankings=True)
    return write_beir(
        folder / "heldout",
        {name: f"{prefix}code of {name}" for name in names},
        {name: f"{prefix}words of {name}" for name in names},
        [f"{name} {name} 1" for name in names],
    )


def test_key_figures_are_those_of_the_metrics():
    figures = {row[0]: row[1:] for row in rows(training_section(RUNS))}
    assert figures["Steps"] == ["130", "4"]
    assert figures["Time in steps"] == ["1 h 05 min", "2 min 00 s"]
    assert figures["Pairs per second (median)"] == ["8.2", "8.2"]
    assert figures["Tokens per second (median)"] == ["1,234", "1,234"]
    assert figures["Share of real tokens (median)"] == ["87.5%", "87.5%"]
    assert figures["Trained parameters"] == ["1,234,567", "1,000"]
    assert figures["Last loss"] == ["1.7100", "0.0625"]
    assert figures["Last accuracy"] == ["62.5%", "62.5%"]


def test_a_metric_that_is_missing_or_not_finite_is_left_out():
    values = [
        {"step": 0, "train/loss": None},
        {"step": 1, "train/loss": 0.5},
        {"step": 2, "train/loss": math.nan},
    ]
    text = training_section([TrainingRun("stage 1", values, 1)])
    figures = {row[0]: row[1:] for row in rows(text)}
    assert figures["Last loss"] == ["0.5000"]
    assert figures["Last accuracy"] == ["–"]
    assert "nan" not in text


def test_only_the_right_document_is_marked(tmp_path):
    heldout = write_heldout(tmp_path, {"f1": Ranking(1, [("f1", 0.75), ("f2", 0.5)])})
    text = search_section(heldout, tmp_path)
    summaries = re.findall(r"<summary>.*?</summary>", text)
    (marked,) = (summary for summary in summaries if "✓ right" in summary)
    assert "f1" in marked
    assert "0.750" in marked
    assert "at rank 1." in text


def test_examples_are_from_the_easiest_query_to_the_hardest(tmp_path):
    # f0 is the hardest, without a rank; the others have ranks from 7 down to 1.
    rankings = {
        f"f{number}": Ranking(8 - number if number else None, [("f1", 0.5)]) for number in range(8)
    }
    text = search_section(write_heldout(tmp_path, rankings), tmp_path)
    queries = re.findall(r"<blockquote>words of (f\d)</blockquote>", text)
    assert queries == ["f7", "f6", "f5", "f4", "f3", "f2"]
    assert re.findall(r"at rank (\d)\.", text) == ["1", "2", "3", "4", "5", "6"]
    assert "code of f1" in text
    assert "✓ right" not in text


def test_without_rankings_there_are_no_examples(tmp_path):
    heldout = write_heldout(tmp_path, {})
    assert "<article>" not in search_section(heldout, tmp_path / "none")


def test_hostile_text_is_escaped_and_the_sections_load_nothing(tmp_path):
    heldout = write_heldout(tmp_path, {"f1": Ranking(1, [("f1", 0.75)])}, prefix=HOSTILE)
    runs = [TrainingRun(HOSTILE, metrics(3), 1), TrainingRun("b", metrics(3), 1)]
    for text in (search_section(heldout, tmp_path), training_section(runs)):
        assert "<script" not in text
        assert "&lt;script&gt;" in text
        assert not re.findall(r"https?:|<link|@import|url\((?!#)|src=|\bid=", text)
    assert training_section(runs) == training_section(runs)


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
