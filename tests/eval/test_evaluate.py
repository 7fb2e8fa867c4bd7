import argparse
import json
import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from mteb.mocks.mock_tasks import MockSTSTask

from e5jax.__main__ import parser
from e5jax.errors import ConfigError
from e5jax.eval.bm25 import BM25
from e5jax.eval.encoder import JaxEncoder
from e5jax.eval.evaluate import evaluate
from e5jax.eval.main import main, table
from e5jax.eval.preset import PRESETS
from e5jax.eval.retrieval import load_task
from e5jax.eval.tasks import find_tasks

PAPER = PRESETS["paper"]

# The cosine of document i with a query of angle 0 falls from d0 to d4.
ANGLES = {"d0": 0.0, "d1": 0.2, "d2": 0.4, "d3": 0.6, "d4": 0.8, "q1": 0.0, "q2": 0.9}


class Angles:
    """An embedder that reads its vector from the text: the name of an angle."""

    tokenizer = SimpleNamespace(limit=512)

    def encode(self, texts, instruction=None, show_progress=False, *, normalise=True):
        del instruction, show_progress, normalise
        return np.array([[math.cos(ANGLES[text]), math.sin(ANGLES[text])] for text in texts], np.float32)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "five"
    (root / "qrels").mkdir(parents=True)
    documents, queries = ([name for name in ANGLES if name[0] == kind] for kind in "dq")
    (root / "corpus.jsonl").write_text("".join(json.dumps({"_id": d, "title": "", "text": d}) + "\n" for d in documents))
    (root / "queries.jsonl").write_text("".join(json.dumps({"_id": q, "text": q}) + "\n" for q in queries))
    (root / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq1\td1\t1\nq1\td3\t1\nq2\td0\t1\n")
    return root


def by_hand() -> float:
    """q1 ranks d0 d1 d2 d3 d4, with d1 and d3 right; q2 ranks d4 d3 d2 d1 d0, with d0 right."""
    q1 = (1 / math.log2(3) + 1 / math.log2(5)) / (1 / math.log2(2) + 1 / math.log2(3))
    q2 = (1 / math.log2(6)) / (1 / math.log2(2))
    return (q1 + q2) / 2


def test_ndcg_equals_the_one_computed_by_hand(folder, tmp_path):
    scores = evaluate(JaxEncoder(Angles(), PAPER), [load_task(folder)], tmp_path / "out")["five"]
    # mteb rounds to five digits.
    assert scores["ndcg_at_10"] == pytest.approx(by_hand(), abs=1e-5)
    assert scores["main_score"] == scores["ndcg_at_10"]
    assert scores["recall_at_10"] == 1
    assert scores["mrr_at_10"] == pytest.approx((1 / 2 + 1 / 5) / 2, abs=1e-5)


def test_mteb_s_own_result_is_written_below_the_output(folder, tmp_path):
    scores = evaluate(JaxEncoder(Angles(), PAPER), [load_task(folder)], tmp_path / "out")
    written = json.loads((tmp_path / "out" / "five.json").read_text())
    assert written["scores"]["test"][0]["main_score"] == pytest.approx(scores["five"]["main_score"])


def test_a_loaded_task_can_be_evaluated_again(folder, tmp_path):
    task = load_task(folder)
    first, second = (evaluate(JaxEncoder(Angles(), PAPER), [task], tmp_path) for _ in range(2))
    assert first == second


def test_bm25_is_scored_by_the_same_metrics_and_an_unanswered_query_scores_nothing(folder, tmp_path):
    # Queries share no term with documents but q2, whose text is made that of its right document.
    (folder / "queries.jsonl").write_text('{"_id": "q1", "text": "unheard"}\n{"_id": "q2", "text": "d0"}\n')
    assert evaluate(BM25(), [load_task(folder)], tmp_path / "out")["five"]["ndcg_at_10"] == pytest.approx(0.5)


def test_a_task_without_retrieval_scores_has_its_main_score_only(tmp_path):
    task = MockSTSTask()
    task.load_data()
    words = sorted({text for column in ("sentence1", "sentence2") for text in task.dataset["test"][column]})

    class Known:
        tokenizer = SimpleNamespace(limit=512)

        def encode(self, texts, instruction=None, show_progress=False, *, normalise=True):
            del instruction, show_progress, normalise
            return np.array([np.eye(len(words))[words.index(text)] + 0.1 * words.index(text) for text in texts], np.float32)

    assert set(evaluate(JaxEncoder(Known(), PAPER), [task], tmp_path)["MockSTSTask"]) == {"main_score"}


def arguments(**changed: str) -> argparse.Namespace:
    return parser().parse_args(["eval", *(f"--{name}={value}" for name, value in changed.items())])


def test_a_missing_model_folder_is_refused(folder, tmp_path):
    with pytest.raises(ConfigError, match="there is no such folder"):
        main(arguments(model=str(tmp_path / "none"), tasks=str(folder), output=str(tmp_path / "out")))


def test_an_unknown_task_is_answered_with_its_neighbours():
    with pytest.raises(ConfigError, match=r"no MTEB task 'SciFct'.*did you mean SciFact"):
        find_tasks("SciFct")


def test_tasks_are_found_by_name_and_by_folder(folder):
    assert [task.metadata.name for task in find_tasks(f"SciFact,{folder}")] == ["SciFact", "five"]


def test_two_tasks_of_one_name_are_refused(folder):
    with pytest.raises(ConfigError, match="names five more than once"):
        find_tasks(f"{folder},{folder}")


def test_no_task_is_refused():
    with pytest.raises(ConfigError, match="--tasks is empty"):
        find_tasks(",")


def test_the_table_shows_every_score_and_marks_what_is_absent():
    lines = table({"five": {"main_score": 0.25, "ndcg_at_10": 0.25}, "STS12": {"main_score": 0.5}}).splitlines()
    assert [line.split() for line in lines] == [
        ["task", "main_score", "ndcg_at_10"],
        ["five", "0.2500", "0.2500"],
        ["STS12", "0.5000", "-"],
    ]
