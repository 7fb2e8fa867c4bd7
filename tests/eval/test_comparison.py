import argparse
import html
import json
import re
from pathlib import Path

import numpy as np
import pytest

from e5jax.__main__ import parser
from e5jax.datasets.clean import clean
from e5jax.errors import ConfigError
from e5jax.eval.averages import categories, mean
from e5jax.eval.commands import main
from e5jax.eval.comparison import ALL, make_board
from e5jax.eval.comparison_report import html as as_html
from e5jax.eval.comparison_report import markdown
from e5jax.eval.contamination import read_manifests
from e5jax.eval.results import find_results, paper_table, read_results
from e5jax.eval.scope import TaskScope
from e5jax.eval.tasks import paper_scopes

SETTINGS = {"name": "ours", "preset": "paper", "instruction": None}
# Table 1 and, where it has them, table 5 of the paper.
PUBLISHED = {
    "full data": (78.5, 50.3, 88.3, 60.2, 56.9, 84.6, 31.4, 66.6),
    "synthetic only": (78.2, 50.5, 86.0, 59.0, 46.9, 81.2, 31.9, 63.1),
    "synthetic and MS MARCO": (78.3, 49.9, 87.1, 59.5, 52.2, 81.2, 32.7, 64.5),
}
SCOPE = dict(paper_scopes())


def write(
    root: Path, name: str, category_scores: dict[str, float], queries: dict[str, dict] | None = None
) -> Path:
    """A folder of results as mteb writes them."""
    folder = root / name
    (folder / "queries").mkdir(parents=True)
    for task, score in category_scores.items():
        made = {
            "task_name": task,
            "dataset_revision": "abc",
            "evaluation_time": 90.0,
            "scores": {
                "test": [{"main_score": score, "hf_subset": "default", "languages": ["eng-Latn"]}]
            },
        }
        (folder / f"{task}.json").write_text(json.dumps(made))
    for task, scores in (queries or {}).items():
        (folder / "queries" / f"{task}.json").write_text(json.dumps({"test/default": scores}))
    return folder


def rows(text: str) -> list[list[str]]:
    """The cells of every table row of a page."""
    found = re.findall(r"<tr>(.*?)</tr>", text, re.DOTALL)
    return [
        [html.unescape(cell) for cell in re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row)]
        for row in found
    ]


@pytest.mark.parametrize("column", PUBLISHED)
def test_means_of_the_papers_56_scores_are_those_of_its_table(column):
    paper = find_results(f"paper:{column}", SCOPE)
    board = make_board([paper], SCOPE, [], SETTINGS, None)
    found = [by[paper.name] for by in board.means.values()]
    assert list(board.means)[-1] == ALL
    assert [one.tasks for one in found] == [12, 11, 3, 4, 15, 10, 1, 56]
    for one, published in zip(found, PUBLISHED[column], strict=True):
        assert one.value is not None
        assert 100 * one.value == pytest.approx(published, abs=0.1)
        # Printed scores are rounded to 0.1, so means of them are as good as this.
        assert abs(100 * one.value - published) < 0.1


def test_a_mean_never_leaves_out_a_task(tmp_path):
    ours = read_results("ours", write(tmp_path, "ours", {"ArguAna": 0.5, "NFCorpus": 0.25}), SCOPE)
    whole = mean(ours, ["ArguAna", "NFCorpus"])
    assert whole == (0.375, 2, 2)
    assert mean(ours, ["ArguAna", "NFCorpus", "SciFact"]) == (None, 2, 3)
    assert mean(ours, []) == (None, 0, 0)


def test_categories_come_in_the_papers_order_and_others_after():
    scope = {"x": "BitextMining", "s": "STS", "c": "Classification", "d": "Classification"}
    assert categories(scope) == {"Classification": ["c", "d"], "STS": ["s"], "BitextMining": ["x"]}


def test_results_are_read_from_any_depth_and_a_task_twice_is_refused(tmp_path):
    write(tmp_path / "model" / "revision", "a", {"ArguAna": 0.5})
    assert read_results("x", tmp_path, SCOPE).tasks["ArguAna"].main == 0.5
    write(tmp_path / "model" / "revision", "b", {"ArguAna": 0.25})
    with pytest.raises(ConfigError, match="ArguAna is also in"):
        read_results("x", tmp_path, SCOPE)


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ("paper:none", "has the columns full data"),
        ("x=/none", "no such folder"),
        (".", "holds no results"),
    ],
)
def test_what_cannot_stand_beside_is_refused(tmp_path, monkeypatch, said, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=message):
        find_results(said, SCOPE)


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    random = np.random.default_rng(0)
    queries = {f"q{number}": float(random.uniform()) for number in range(50)}
    worse = {query: score - 0.1 for query, score in queries.items()}
    ours = {
        "ArguAna": 0.61234,
        "NFCorpus": 0.4,
        "STS12": 0.7986,
        "BIOSSES": 0.8,
        "SummEval": 0.3141,
        "my-own": 0.25,
    }
    output = tmp_path / "out"
    write(output, "mteb", ours, {"ArguAna": queries})
    (output / "mteb" / "settings.json").write_text(json.dumps(SETTINGS))
    own = TaskScope("Retrieval", ("test",), ("default",))
    scope = {task: SCOPE.get(task, own) for task in [*ours, "SciFact"]}  # of which ours lacks one
    (output / "results.json").write_text(
        json.dumps({"tasks": {task: of.as_json() for task, of in scope.items()}})
    )
    return output, write(
        tmp_path, "theirs", {"ArguAna": 0.5, "SciFact": 0.7, "STS12": 0.1}, {"ArguAna": worse}
    )


def arguments(*words: str) -> argparse.Namespace:
    return parser().parse_args(["eval", "--report", *words])


@pytest.fixture
def reported(folders) -> tuple[Path, str]:
    output, theirs = folders
    main(
        arguments(
            f"--output={output}", f"--beside=theirs={theirs}", "--beside=paper", "--price=2.5"
        )
    )
    return output, (output / "report.html").read_text(encoding="utf-8")


def test_every_number_on_the_page_is_from_a_results_file(reported):
    output, text = reported
    files = {
        name: {p.stem: p for p in (output.parent / name).glob("*.json")}
        for name in ("out/mteb", "theirs")
    }
    table = {
        row[0]: row for row in reversed(rows(text))
    }  # the first of a name: not that among the differences

    def percent(name: str, task: str) -> str:
        if task not in files[name]:
            return "–"
        return f"{100 * json.loads(files[name][task].read_text())['scores']['test'][0]['main_score']:.2f}"

    paper = {task: f"{scores[0]:.2f}" for task, (_, scores) in paper_table()[1].items()}
    tasks = ["ArguAna", "NFCorpus", "STS12", "BIOSSES", "SummEval", "my-own", "SciFact"]
    for task in tasks:
        assert table[task][2:5] == [
            percent("out/mteb", task),
            percent("theirs", task),
            paper.get(task, "–"),
        ], task
        assert table[task][5] == ("1 min 30 s" if task in files["out/mteb"] else "–")
    numbers = set(re.findall(r">([+\-−]?\d+\.\d+)<", text))
    shown = {cell for row in rows(text) for cell in row} | set(
        re.findall(r'font-size="10"[^>]*>([^<]*)<', text)
    )
    assert numbers <= shown
    drawn = re.findall(r'font-size="10"[^>]*>([^<]*)<', text)
    means = [
        table[name][2 + place]
        for name in ("Retrieval", "STS", "Summarization")
        for place in range(3)
    ]
    assert drawn == [re.sub(r" \(.*", "", cell) for cell in means]


def test_the_page_has_means_only_where_no_task_is_missing(reported):
    table = {row[0]: row[1:] for row in rows(reported[1])}
    assert table["STS"] == ["2", "79.93", "– (1 of 2)", "82.60"]
    assert table["Retrieval"] == ["4", "– (3 of 4)", "– (2 of 4)", "– (3 of 4)"]
    assert table["all tasks"] == ["7", "– (6 of 7)", "– (3 of 7)", "– (6 of 7)"]
    assert table["shared by all"] == [
        "2",
        f"{(61.234 + 79.86) / 2:.2f}",
        "30.00",
        f"{(61.9 + 79.7) / 2:.2f}",
    ]


def test_the_json_has_what_the_page_has_and_the_report_can_be_made_again(reported, folders):
    output, text = reported
    made = json.loads((output / "results.json").read_text())
    assert made["tasks"]["ArguAna"]["scores"] == {"ours": 0.61234, "theirs": 0.5, "paper": 0.619}
    assert made["means"]["STS"]["theirs"] == {"value": None, "tasks": 1, "of": 2}
    assert made["hours"] == pytest.approx(6 * 90 / 3600)
    assert made["cost"] == pytest.approx(2.5 * 6 * 90 / 3600)
    main(
        arguments(
            f"--output={output}", f"--beside=theirs={folders[1]}", "--beside=paper", "--price=2.5"
        )
    )
    assert (output / "report.html").read_text(encoding="utf-8") == text


def test_the_text_has_the_cells_of_the_page(reported):
    output, text = reported
    lines = (output / "results.md").read_text(encoding="utf-8").splitlines()
    piped = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in lines
        if line.startswith("|")
    ]
    assert [row for row in piped if set(row) != {"---"}] == [row for row in rows(text) if row]


def test_a_difference_by_query_is_on_the_page(reported):
    (row,) = [row for row in rows(reported[1]) if row[:2] == ["ArguAna", "theirs"]]
    assert row[2:] == ["50", "+10.00", "+10.00 … +10.00", "0.0002"]


def test_the_same_name_twice_is_refused(folders):
    output, theirs = folders
    with pytest.raises(ConfigError, match="ours stands there more than once"):
        main(arguments(f"--output={output}", f"--beside=ours={theirs}"))


def test_the_paper_stands_beside_its_own_preset_unasked(folders):
    output, _ = folders
    main(arguments(f"--output={output}"))
    assert "paper" in rows((output / "report.html").read_text())[0]
    (output / "mteb" / "settings.json").write_text(json.dumps({**SETTINGS, "preset": "mteb-v2"}))
    main(arguments(f"--output={output}"))
    assert "paper" not in rows((output / "report.html").read_text())[0]


def test_names_from_outside_are_escaped(tmp_path):
    hostile = '"><script>'
    ours = read_results(
        hostile, write(tmp_path, "ours", {"ArguAna": 0.5, "STS12": 0.5, "SummEval": 0.5}), SCOPE
    )
    board = make_board(
        [ours], {task: SCOPE[task] for task in ours.tasks}, [], {hostile: hostile}, None
    )
    assert "<script" not in as_html(board)
    assert not re.findall(r"https?:|<link|<script|@import|url\((?!#)|src=", as_html(board))
    assert markdown(board)


def test_flags_say_what_manifests_know(tmp_path, folders):
    output, _ = folders
    clean = {
        "examples": 9,
        "kept": 7,
        "rejected": {},
        "removed": {},
        "evaluation": {"ArguAna": {"texts": 5, "removed": 1_234}},
    }
    for name, file, values in [
        ("cleaned", "clean.json", clean),
        ("hotpotqa", "manifest.json", {"set": "hotpotqa"}),
    ]:
        (tmp_path / name).mkdir()
        (tmp_path / name / file).write_text(json.dumps(values))
    manifests = read_manifests([tmp_path / "cleaned", tmp_path / "hotpotqa"])
    names = ["ArguAna", "HotpotQA", "NanoHotpotQARetrieval", "NQ"]
    tasks = dict.fromkeys(names, TaskScope("Retrieval", ("test",), ("default",)))
    board = make_board([find_results("paper", tasks)], tasks, manifests, SETTINGS, None)
    assert board.flags == {
        "ArguAna": "cleaned, 1,234 records left out",
        "HotpotQA": "trained on hotpotqa",
        "NanoHotpotQARetrieval": "trained on hotpotqa",
        "NQ": "not checked",
    }
    main(arguments(f"--output={output}", f"--data={tmp_path / 'cleaned'}"))
    assert "1,234 records left out" in (output / "report.html").read_text()
    with pytest.raises(ConfigError, match=r"no clean\.json and no manifest\.json"):
        read_manifests([output])


def with_subsets(folder: Path, task: str, scores: dict[tuple[str, str], float]) -> None:
    """A result of mteb on several splits and subsets."""
    by_split = {split: [] for split, _ in scores}
    for (split, subset), score in scores.items():
        by_split[split].append(
            {"main_score": score, "hf_subset": subset, "languages": ["eng-Latn"]}
        )
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{task}.json").write_text(
        json.dumps({"task_name": task, "dataset_revision": "abc", "scores": by_split})
    )


def test_scores_side_by_side_are_of_the_same_splits_and_subsets(tmp_path):
    reviews, places = (
        "AmazonReviewsClassification",
        [("validation", "en"), ("test", "en"), ("test", "de")],
    )
    with_subsets(tmp_path / "ours", reviews, dict(zip(places, (0.9, 0.5, 0.1), strict=True)))
    with_subsets(tmp_path / "theirs", reviews, dict(zip(places, (0.1, 0.4, 0.9), strict=True)))
    with_subsets(tmp_path / "german", reviews, {("test", "de"): 0.8})
    scope = {reviews: SCOPE[reviews]}
    systems = [read_results(name, tmp_path / name, scope) for name in ("ours", "theirs", "german")]
    board = make_board([*systems, find_results("paper", scope)], scope, [], SETTINGS, None)
    row = rows(as_html(board))[
        rows(as_html(board)).index(
            ["task", "of", *[s.name for s in board.systems], "time", "training data"]
        )
        + 1
    ]
    published = f"{paper_table()[1][reviews][1][0]:.2f}"
    assert row[:6] == [reviews, "test/en", "50.00", "40.00", "–", published]
    assert board.means[ALL]["german"] == (None, 0, 1)
    (note,) = board.notes
    assert note.startswith(f"{reviews}: german left out: ")
    assert note.endswith("has scores of test/de, and the task here is test/en")
    assert note in markdown(board)
    assert html.escape(note) in as_html(board)
    assert board.as_json()["tasks"][reviews]["subsets"] == ("en",)
    # A benchmark on more of the task: the paper's score is none of it.
    wide = {reviews: TaskScope("Classification", ("test",), ("en", "de"))}
    assert read_results("ours", tmp_path / "ours", wide).tasks[reviews].main == pytest.approx(0.3)
    assert find_results("paper", wide).tasks == {}


def test_queries_are_compared_within_the_same_splits_and_subsets(tmp_path):
    scope = {"ArguAna": SCOPE["ArguAna"]}
    systems = []
    for name, more in (
        ("ours", {"test/default": {"q1": 1.0, "q2": 0.5}, "dev/default": {"q1": 0.0}}),
        ("theirs", {"test/default": {"q1": 0.5, "q2": 0.0}}),
    ):
        folder = write(tmp_path, name, {"ArguAna": 0.75})
        (folder / "queries/ArguAna.json").write_text(json.dumps(more))
        systems.append(read_results(name, folder, scope))
    board = make_board(systems, scope, [], SETTINGS, None)
    assert board.differences["ArguAna"]["theirs"].queries == 2
    assert board.differences["ArguAna"]["theirs"].mean == 0.5


def test_results_that_do_not_say_what_their_scores_are_of_are_refused(folders):
    output, _ = folders
    (output / "results.json").write_text(
        json.dumps({"tasks": {"ArguAna": {"category": "Retrieval"}}})
    )
    with pytest.raises(
        ConfigError,
        match=r"does not say of which splits and subsets the scores of ArguAna are; remove the file",
    ):
        main(arguments(f"--output={output}"))


def test_a_cleaning_counts_for_the_splits_and_subsets_that_it_looked_for(tmp_path):
    reviews = "AmazonReviewsClassification"
    scope = {reviews: TaskScope("Classification", ("test",), ("en", "de"))}
    texts = [
        (f"{reviews}/{subset}/test/text/1", f"a review of {subset}") for subset in ("en", "fr")
    ]
    (tmp_path / "train.jsonl").write_text(
        '{"schema": 1, "id": "1", "query": "a", "positives": ["b"]}\n'
    )
    clean([tmp_path / "train.jsonl"], tmp_path / "cleaned", texts)
    board = make_board(
        [find_results("paper", scope)],
        scope,
        read_manifests([tmp_path / "cleaned"]),
        SETTINGS,
        None,
    )
    assert board.flags[reviews] == "cleaned, 0 records left out; not checked for de/test"
