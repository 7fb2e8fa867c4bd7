import html
import json
import re
from pathlib import Path

import pytest

from e5jax.eval.report import Neighbour, Report, Run, Search, read_metrics, write_report

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


REPORT = Report(
    title="A run",
    lead="What it is.",
    results={
        "untrained": {"ndcg_at_10": 0.0123, "recall_at_100": 0.2345},
        "BM25": {"ndcg_at_10": 0.4567, "recall_at_100": 0.9876},
        "stage 2": {"ndcg_at_10": 0.6789, "recall_at_100": 0.8765},
    },
    runs=[
        Run("stage 1", metrics(130), 1_234_567),
        Run("stage 2", metrics(4, **{"train/loss": 0.0625})),
    ],
    query_lengths=[3, 5, 8] * 1000,
    passage_lengths=[10, 20, 512],
    searches=[
        Search(
            "Returns one.",
            [
                Neighbour("a.one", "def one(): ...", 0.75, True),
                Neighbour("b.two", "def two(): ...", 0.5, False),
            ],
            1,
        )
    ],
    next_command="e5jax eval --model=export",
)


@pytest.fixture
def write(tmp_path: Path):
    def written(**changed) -> str:
        write_report(tmp_path / "report.html", REPORT._replace(**changed))
        return (tmp_path / "report.html").read_text(encoding="utf-8")

    return written


def rows(text: str) -> list[list[str]]:
    """The cells of every table row."""
    found = re.findall(r"<tr>(.*?)</tr>", text, re.DOTALL)
    return [
        [html.unescape(cell) for cell in re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row)]
        for row in found
    ]


def test_scores_on_the_page_are_those_handed_in(write):
    table = rows(write())
    assert table[:4] == [
        ["system", "nDCG@10", "Recall@100"],
        ["untrained", "0.0123", "0.2345"],
        ["BM25", "0.4567", "0.9876"],
        ["stage 2", "0.6789", "0.8765"],
    ]


def test_the_best_of_each_column_is_stressed(write):
    assert re.findall(r"<td class=best>(.*?)</td>", write()) == ["0.9876", "0.6789"]


def test_a_score_that_a_system_lacks_is_absent_not_zero(write):
    text = write(results={"a": {"ndcg_at_10": 0.5}, "b": {"mrr_at_10": 0.25}})
    assert rows(text)[:3] == [
        ["system", "nDCG@10", "MRR@10"],
        ["a", "0.5000", "–"],
        ["b", "–", "0.2500"],
    ]


def test_key_figures_on_the_page_are_those_handed_in(write):
    figures = {row[0]: row[1:] for row in rows(write())}
    assert figures["Steps"] == ["130", "4"]
    assert figures["Time in steps"] == ["1 h 05 min", "2 min 00 s"]
    assert figures["Pairs a second (median)"] == ["8.2", "8.2"]
    assert figures["Tokens a second (median)"] == ["1,234", "1,234"]
    assert figures["Real tokens, share (median)"] == ["87.5%", "87.5%"]
    assert figures["Trained parameters"] == ["1,234,567", "–"]
    assert figures["Last loss"] == ["1.7100", "0.0625"]
    assert figures["Last accuracy"] == ["62.5%", "62.5%"]


def test_a_metric_that_is_missing_or_not_finite_is_left_out(write):
    text = write(
        runs=[
            Run(
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


def test_the_right_neighbour_is_marked_and_only_it(write):
    text = write()
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
        {"title": HOSTILE},
        {"lead": HOSTILE},
        {"next_command": HOSTILE},
        {"results": {HOSTILE: {"ndcg_at_10": 0.5}}},
        {"runs": [Run(HOSTILE, metrics(3)), Run("b", metrics(3))]},
        {"searches": [Search(HOSTILE, [], 1)]},
        {"searches": [Search("q", [Neighbour(HOSTILE, "text", 0.5, False)], 1)]},
        {"searches": [Search("q", [Neighbour("name", HOSTILE, 0.5, False)], 1)]},
    ],
)
def test_hostile_text_is_escaped(write, changed):
    text = write(**changed)
    assert "<script" not in text
    assert "&lt;script&gt;" in text


def test_the_page_loads_nothing(write):
    text = re.sub(r'xmlns(:xlink)?="[^"]*"', "", write())
    assert not re.findall(r"https?:|<link|<script|@import|url\((?!#)|src=", text)


def test_the_same_report_gives_the_same_bytes(write):
    assert write() == write()


def test_ids_are_unique_on_the_page(write):
    ids = re.findall(r'\bid="([^"]*)"', write())
    assert len(ids) == len(set(ids))


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
