"""The page, the text and the table of `results.json`; `e5jax eval --report` writes them."""

import html
import json
import re
from pathlib import Path

import numpy as np
import pytest

from e5jax.cli import parser
from e5jax.config.commands import EvalOptions
from e5jax.config.options import read_options
from e5jax.errors import ConfigError
from e5jax.eval.commands import main
from e5jax.eval.comparison import paper_table
from e5jax.eval.report import html as as_html
from e5jax.eval.report import markdown, metric_table
from e5jax.report.results import Results, Task, read_results, write_results
from e5jax.report.tables import aligned
from tests.eval.mteb_results import PAPER_TASKS, SETTINGS, rows, write_folder

HOSTILE = '"></pre><script>alert("&")</script>'
TEST = Task("Retrieval", ("test",), ("default",))
OURS = {
    "ArguAna": 0.61234,
    "NFCorpus": 0.4,
    "STS12": 0.7986,
    "BIOSSES": 0.8,
    "SummEval": 0.3141,
    "my-own": 0.25,
}


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """An output with an evaluation that lacks SciFact, and the results of another system."""
    random = np.random.default_rng(0)
    queries = {f"q{number}": float(random.uniform()) for number in range(50)}
    worse = {query: score - 0.1 for query, score in queries.items()}
    output = tmp_path / "out"
    write_folder(output, "mteb", OURS, {"ArguAna": queries})
    (output / "mteb" / "settings.json").write_text(json.dumps(SETTINGS))
    tasks = {task: PAPER_TASKS.get(task, TEST) for task in [*OURS, "SciFact"]}
    write_results(output / "results.json", Results("ours", tasks, {"ours": {}}))
    scores = {"ArguAna": 0.5, "SciFact": 0.7, "STS12": 0.1}
    return output, write_folder(tmp_path, "theirs", scores, {"ArguAna": worse})


def arguments(*words: str) -> EvalOptions:
    return read_options(EvalOptions, parser().parse_args(["eval", "--report", *words]))


def report(output: Path, theirs: Path) -> str:
    options = (f"--beside=theirs={theirs}", "--beside=paper", "--price=2.5")
    main(arguments(f"--output={output}", *options))
    return (output / "report.html").read_text(encoding="utf-8")


@pytest.fixture
def reported(folders) -> tuple[Path, str]:
    return folders[0], report(*folders)


def test_every_number_on_the_page_is_from_a_results_file(reported):
    output, text = reported
    files = {
        name: {path.stem: path for path in (output.parent / name).glob("*.json")}
        for name in ("out/mteb", "theirs")
    }
    # The first row of a name: not that among the differences or all scores.
    table = {row[0]: row for row in reversed(rows(text))}

    def percent(name: str, task: str) -> str:
        if task not in files[name]:
            return "–"
        scores = json.loads(files[name][task].read_text())["scores"]
        return f"{100 * scores['test'][0]['main_score']:.2f}"

    paper = {task: f"{scores[0]:.2f}" for task, scores in paper_table()[1].items()}
    for task in [*OURS, "SciFact"]:
        assert table[task][2:5] == [
            percent("out/mteb", task),
            percent("theirs", task),
            paper.get(task, "–"),
        ], task
        assert table[task][5] == ("1 min 30 s" if task in files["out/mteb"] else "–")
    bars = re.findall(r"</div><span>([^<]*) (?:ours|theirs|paper)</span>", text)
    numbers = set(re.findall(r">([+\-−]?\d+\.\d+)<", text))
    assert numbers <= {cell for row in rows(text) for cell in row}
    assert bars == [
        table[name][2 + place]
        for name in ("Retrieval", "STS", "Summarization")
        for place in range(3)
    ]


def test_bars_are_as_long_as_their_averages_and_a_missing_average_has_none(reported):
    averages = read_results(reported[0] / "results.json").averages
    lengths = [float(width) for width in re.findall(r"width: ([\d.]+)%; background", reported[1])]
    values = [
        average.value or 0
        for name in ("Retrieval", "STS", "Summarization")
        for average in averages[name].values()
    ]
    assert lengths == pytest.approx([100 * value for value in values], abs=0.01)
    assert 0 in lengths


def test_the_page_has_averages_only_if_no_task_is_missing(reported):
    table = {row[0]: row[1:] for row in rows(reported[1])}
    assert table["STS"] == ["2", "79.93", "– (1 of 2)", "82.60"]
    assert table["Retrieval"] == ["4", "– (3 of 4)", "– (2 of 4)", "– (3 of 4)"]
    assert table["all tasks"] == ["7", "– (6 of 7)", "– (3 of 7)", "– (6 of 7)"]
    shared = [f"{(61.234 + 79.86) / 2:.2f}", "30.00", f"{(61.9 + 79.7) / 2:.2f}"]
    assert table["shared by all"] == ["2", *shared]


def test_the_json_has_the_numbers_of_the_page_and_the_report_can_be_written_again(
    reported, folders
):
    output, text = reported
    values = json.loads((output / "results.json").read_text())
    assert {name: by["ArguAna"]["main_score"] for name, by in values["scores"].items()} == {
        "ours": 0.61234,
        "theirs": 0.5,
        "paper": 0.619,
    }
    assert values["averages"]["STS"]["theirs"] == {"value": None, "tasks": 1, "of": 2}
    assert values["hours"] == pytest.approx(6 * 90 / 3600)
    assert values["cost"] == pytest.approx(2.5 * 6 * 90 / 3600)
    assert report(*folders) == text


def test_the_text_has_the_cells_of_the_page(reported):
    output, text = reported
    lines = (output / "results.md").read_text(encoding="utf-8").splitlines()
    cells = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in lines
        if line.startswith("|")
    ]
    assert [row for row in cells if set(row) != {"---"}] == [row for row in rows(text) if row]


def test_a_difference_by_query_is_on_the_page(reported):
    (row,) = [
        row for row in rows(reported[1]) if row[:2] == ["ArguAna", "theirs"] and len(row) == 6
    ]
    assert row[2:] == ["50", "+10.00", "+10.00 … +10.00", "0.0002"]


def test_a_repeated_name_is_refused(folders):
    output, theirs = folders
    with pytest.raises(ConfigError, match="ours is there more than once"):
        main(arguments(f"--output={output}", f"--beside=ours={theirs}"))


def test_the_paper_is_compared_by_default_with_its_own_preset(folders):
    output, _ = folders
    main(arguments(f"--output={output}"))
    assert "paper" in rows((output / "report.html").read_text())[0]
    (output / "mteb" / "settings.json").write_text(json.dumps({**SETTINGS, "preset": "mteb-v2"}))
    main(arguments(f"--output={output}"))
    assert "paper" not in rows((output / "report.html").read_text())[0]


def test_results_of_an_earlier_version_are_refused_with_the_way_out(folders):
    output, _ = folders
    (output / "results.json").write_text(json.dumps({"tasks": {"ArguAna": {}}, "means": {}}))
    with pytest.raises(ConfigError, match=r"schema=None.* delete the file and run the command"):
        main(arguments(f"--output={output}"))


def test_a_report_without_an_evaluation_is_refused(folders):
    output, _ = folders
    for name in ("results.json", "mteb/settings.json"):
        (output / name).unlink()
        with pytest.raises(ConfigError, match=rf"{name}: no such file; evaluate first: e5jax"):
            main(arguments(f"--output={output}"))


def test_remarks_on_training_data_are_on_the_page(folders, tmp_path):
    output, _ = folders
    counts = {"examples": 9, "kept": 7, "rejected": {}, "removed": {}}
    values = {**counts, "evaluation": {"ArguAna": {"texts": 5, "removed": 1_234}}}
    (tmp_path / "cleaned").mkdir()
    (tmp_path / "cleaned/clean.json").write_text(json.dumps(values))
    assert "training data" not in report(*folders)
    main(arguments(f"--output={output}", f"--data={tmp_path / 'cleaned'}"))
    assert "1,234 records left out" in (output / "report.html").read_text()


# --- one task ----------------------------------------------------------------------------------

THREE = {
    "untrained": {"heldout": {"main_score": 0.0123, "ndcg_at_10": 0.0123, "recall_at_100": 0.2345}},
    "BM25": {"heldout": {"main_score": 0.4567, "ndcg_at_10": 0.4567, "recall_at_100": 0.9876}},
    "stage 2": {"heldout": {"main_score": 0.6789, "ndcg_at_10": 0.6789, "recall_at_100": 0.8765}},
}


def page(scores: dict, tasks: dict | None = None, **changed) -> str:
    return as_html("A run", "", Results("model", tasks or {"heldout": TEST}, scores, **changed))


def test_one_task_has_a_row_for_each_system_and_the_best_are_stressed():
    text = page(THREE)
    assert rows(text)[:4] == [
        ["system", "nDCG@10", "Recall@100"],
        ["untrained", "0.0123", "0.2345"],
        ["BM25", "0.4567", "0.9876"],
        ["stage 2", "0.6789", "0.8765"],
    ]
    assert re.findall(r"<td class=best>(.*?)</td>", text) == ["0.9876", "0.6789"]


def test_a_metric_that_a_system_lacks_is_absent_not_zero():
    scores = {
        "a": {"x": {"main_score": 0.5, "ndcg_at_10": 0.5}},
        "b": {"x": {"main_score": 0.25, "mrr_at_10": 0.25}},
    }
    assert rows(page(scores, {"x": TEST}))[:3] == [
        ["system", "nDCG@10", "MRR@10", "Main score"],
        ["a", "0.5000", "–", "0.5000"],
        ["b", "–", "0.2500", "0.2500"],
    ]


def test_several_tasks_have_a_row_for_each_task_and_system():
    tasks = {"held": TEST, "STS": Task("STS", ("test",), ("en",))}
    held, sts = {"main_score": 0.5, "ndcg_at_10": 0.5}, {"main_score": 0.25}
    results = Results("a", tasks, {name: {"held": held, "STS": sts} for name in "ab"})
    assert [line.split() for line in aligned(metric_table(results)).splitlines()] == [
        ["task", "data", "system", "nDCG@10", "Main", "score"],
        ["held", "test", "a", "0.5000", "0.5000"],
        ["held", "test", "b", "0.5000", "0.5000"],
        ["STS", "test/en", "a", "–", "0.2500"],
        ["STS", "test/en", "b", "–", "0.2500"],
    ]


def test_every_system_has_a_bar_as_long_as_its_average_and_none_below_zero():
    averages = {"one": 0.5, "two & three": 1.0, "four": -0.2, "five": 0.25, "six": 0.75}
    tasks = {"a": TEST, "b": TEST}
    text = page(
        {name: {task: {"main_score": value} for task in tasks} for name, value in averages.items()},
        tasks,
    )
    lengths = [float(width) for width in re.findall(r"width: ([\d.]+)%; background", text)]
    assert lengths == [50, 100, 0, 25, 75]
    for name, value in averages.items():
        assert f"<span>{100 * value:.2f} {html.escape(name)}</span>" in text


@pytest.mark.parametrize(
    "values",
    [
        {"scores": {HOSTILE: {"heldout": {"main_score": 0.5}}}},
        {"scores": THREE, "settings": {HOSTILE: HOSTILE}},
        {"scores": THREE, "notes": [HOSTILE]},
        {
            "scores": {"a": {HOSTILE: {"main_score": 0.5}, "b": {"main_score": 0.5}}},
            "tasks": {HOSTILE: TEST, "b": TEST},
        },
    ],
)
def test_hostile_text_is_escaped_and_the_page_loads_nothing(values):
    text = page(**values)
    assert "<script" not in text
    assert html.escape(HOSTILE) in text
    assert not re.findall(r"https?:|<link|<script|@import|url\((?!#)|src=", text)
    assert page(**values) == text
    assert markdown(
        "", "", Results("model", values.get("tasks", {"heldout": TEST}), values["scores"])
    )
