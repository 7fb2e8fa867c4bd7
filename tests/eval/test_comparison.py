import json

import numpy as np
import pytest

from e5jax.errors import ConfigError
from e5jax.eval.comparison import (
    RESAMPLES,
    compare,
    difference,
    find_system,
    paper_table,
    read_system,
)
from e5jax.report.results import ALL, Results, Task
from tests.eval.mteb_results import PAPER_TASKS, SETTINGS, write_folder, write_parts

# Table 1 and, where it has them, table 5 of the paper.
PUBLISHED = {
    "full data": (78.5, 50.3, 88.3, 60.2, 56.9, 84.6, 31.4, 66.6),
    "synthetic only": (78.2, 50.5, 86.0, 59.0, 46.9, 81.2, 31.9, 63.1),
    "synthetic and MS MARCO": (78.3, 49.9, 87.1, 59.5, 52.2, 81.2, 32.7, 64.5),
}


@pytest.mark.parametrize("column", PUBLISHED)
def test_averages_of_the_papers_56_scores_are_those_of_its_table(column):
    paper = find_system(f"paper:{column}", PAPER_TASKS)
    averages = compare([paper], paper.name, PAPER_TASKS, settings=SETTINGS).averages
    values = [by_system[paper.name] for by_system in averages.values()]
    assert list(averages)[-1] == ALL
    assert [each.tasks for each in values] == [12, 11, 3, 4, 15, 10, 1, 56]
    for each, published in zip(values, PUBLISHED[column], strict=True):
        assert each.value is not None
        # Printed scores are rounded to 0.1, so averages of them are as exact as this.
        assert abs(100 * each.value - published) < 0.1


def test_an_average_never_leaves_out_a_task(tmp_path):
    folder = write_folder(tmp_path, "ours", {"ArguAna": 0.5, "NFCorpus": 0.25})
    ours = read_system("ours", folder, PAPER_TASKS)
    results = compare([ours], "ours", PAPER_TASKS, settings=SETTINGS)
    assert results.average("ours", ["ArguAna", "NFCorpus"]) == (0.375, 2, 2)
    assert results.average("ours", ["ArguAna", "NFCorpus", "SciFact"]) == (None, 2, 3)
    assert results.average("ours", []) == (None, 0, 0)


def test_categories_are_in_the_papers_order_and_others_follow():
    categories = {"x": "BitextMining", "s": "STS", "c": "Classification", "d": "Classification"}
    tasks = {name: Task(category, ("test",), ("default",)) for name, category in categories.items()}
    assert Results("ours", tasks, {"ours": {}}).categories == {
        "Classification": ["c", "d"],
        "STS": ["s"],
        "BitextMining": ["x"],
    }


def test_results_are_read_from_any_depth_and_a_repeated_task_is_refused(tmp_path):
    write_folder(tmp_path / "model" / "revision", "a", {"ArguAna": 0.5})
    run = read_system("x", tmp_path, PAPER_TASKS).runs["ArguAna"]
    assert run == ({"main_score": 0.5}, 90.0, "abc")
    write_folder(tmp_path / "model" / "revision", "b", {"ArguAna": 0.25})
    with pytest.raises(ConfigError, match="ArguAna is also in"):
        read_system("x", tmp_path, PAPER_TASKS)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("paper:none", "has the columns full data"),
        ("x=/none", "no such folder"),
        (".", "holds no results"),
    ],
)
def test_an_unknown_system_is_refused(tmp_path, monkeypatch, text, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=message):
        find_system(text, PAPER_TASKS)


def test_compared_scores_have_the_same_splits_and_subsets(tmp_path):
    reviews = "AmazonReviewsClassification"
    parts = [("validation", "en"), ("test", "en"), ("test", "de")]
    write_parts(tmp_path / "ours", reviews, dict(zip(parts, (0.9, 0.5, 0.1), strict=True)))
    write_parts(tmp_path / "theirs", reviews, dict(zip(parts, (0.1, 0.4, 0.9), strict=True)))
    write_parts(tmp_path / "german", reviews, {("test", "de"): 0.8})
    tasks = {reviews: PAPER_TASKS[reviews]}
    systems = [read_system(name, tmp_path / name, tasks) for name in ("ours", "theirs", "german")]
    systems.append(find_system("paper", tasks))
    results = compare(systems, "ours", tasks, settings=SETTINGS)
    assert {name: by[reviews]["main_score"] for name, by in results.scores.items() if by} == {
        "ours": 0.5,
        "theirs": 0.4,
        "paper": paper_table()[1][reviews][0] / 100,
    }
    assert results.averages[ALL]["german"] == (None, 0, 1)
    (note,) = results.notes
    assert note.startswith(f"{reviews}: german left out: ")
    assert note.endswith("has scores for test/de, and the task here is test/en")
    # In a benchmark with more subsets of the task, the paper's score cannot be compared.
    wide = {reviews: Task("Classification", ("test",), ("en", "de"))}
    ours = read_system("ours", tmp_path / "ours", wide)
    assert ours.runs[reviews].metrics["main_score"] == pytest.approx(0.3)
    assert find_system("paper", wide).runs == {}


def test_queries_are_compared_within_the_same_splits_and_subsets(tmp_path):
    tasks = {"ArguAna": PAPER_TASKS["ArguAna"]}
    systems = []
    for name, queries in (
        ("ours", {"test/default": {"q1": 1.0, "q2": 0.5}, "dev/default": {"q1": 0.0}}),
        ("theirs", {"test/default": {"q1": 0.5, "q2": 0.0}}),
    ):
        folder = write_folder(tmp_path, name, {"ArguAna": 0.75})
        (folder / "queries/ArguAna.json").write_text(json.dumps(queries))
        systems.append(read_system(name, folder, tasks))
    results = compare(systems, "ours", tasks, settings=SETTINGS)
    assert results.differences["ArguAna"]["theirs"].queries == 2
    assert results.differences["ArguAna"]["theirs"].mean == 0.5


# --- the paired bootstrap ----------------------------------------------------------------------


def by_query(scores: np.ndarray) -> dict[str, float]:
    return {f"q{number}": float(score) for number, score in enumerate(scores)}


def test_the_interval_is_that_of_the_normal_approximation():
    differences = np.random.default_rng(0).normal(0.02, 0.3, 400)
    result = difference(by_query(differences), by_query(np.zeros(400)))
    assert result is not None
    error = differences.std() / 20  # standard error of a mean of 400
    assert result.mean == pytest.approx(differences.mean())
    assert (result.low, result.high) == pytest.approx(
        (result.mean - 1.96 * error, result.mean + 1.96 * error), abs=0.1 * error
    )


def test_equal_systems_do_not_differ_and_a_clear_difference_is_significant():
    same = np.random.default_rng(0).uniform(size=100)
    assert difference(by_query(same), by_query(same))._replace(queries=0) == (0, 0.0, 0.0, 0.0, 1.0)
    assert difference(by_query(same + 0.1), by_query(same)).p == pytest.approx(2 / (RESAMPLES + 1))


def test_p_is_uniform_without_a_difference():
    random = np.random.default_rng(1)
    values = [
        difference(by_query(random.normal(size=60)), by_query(random.normal(size=60))).p
        for _ in range(60)
    ]
    assert 0 < np.mean(np.array(values) < 0.2) < 0.4  # 0.2 expected; 0.05 its standard error


def test_different_queries_cannot_be_compared():
    assert difference({"a": 1.0}, {"b": 1.0}) is None
    assert difference({}, {}) is None
