import json
import math
import shutil
import zlib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from mteb.mocks.mock_tasks import MockAggregatedTask, MockMultilingualSTSTask, MockSTSTask

from e5jax.data.beir import read_retrieval
from e5jax.data.tokenizer import E5
from e5jax.errors import ConfigError
from e5jax.eval.backends import JaxEncoder
from e5jax.eval.bm25 import BM25
from e5jax.eval.encoder import VectorCache
from e5jax.eval.evaluate import evaluate
from e5jax.eval.preset import PRESETS
from e5jax.eval.quantization_study import EmbeddedTask, embed, score
from e5jax.eval.queries import read_queries, read_rankings
from e5jax.eval.tasks import LocalRetrieval, describe
from e5jax.eval.texts import Recorder
from e5jax.inference import rescore
from e5jax.inference.vector_quantization import Store
from tests.beir import write_beir, write_judgements

PAPER = PRESETS["paper"]

# The cosine of document i with a query of angle 0 falls from d0 to d4.
ANGLES = {"d0": 0.0, "d1": 0.2, "d2": 0.4, "d3": 0.6, "d4": 0.8, "q1": 0.0, "q2": 0.9}


class Angles:
    """An embedder that reads its vector from the text: the name of an angle."""

    tokenizer = SimpleNamespace(limit=512, templates=E5)

    def encode(self, texts, instruction=None, show_progress=False, *, normalise=True):
        del instruction, show_progress, normalise
        return np.array(
            [[math.cos(ANGLES[text]), math.sin(ANGLES[text])] for text in texts], np.float32
        )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    documents, queries = ({name: name for name in ANGLES if name[0] == kind} for kind in "dq")
    judgements = ["q1 d1 1", "q1 d3 1", "q2 d0 1"]
    return write_beir(tmp_path / "five", documents, queries, judgements)


def scores_of(task: LocalRetrieval, output: Path) -> dict[str, float]:
    return evaluate(JaxEncoder(Angles(), PAPER), [task], output)[task.metadata.name]


def by_hand() -> float:
    """q1 ranks d0 d1 d2 d3 d4, with d1 and d3 right; q2 ranks d4 d3 d2 d1 d0, with d0 right."""
    q1 = (1 / math.log2(3) + 1 / math.log2(5)) / (1 / math.log2(2) + 1 / math.log2(3))
    q2 = (1 / math.log2(6)) / (1 / math.log2(2))
    return (q1 + q2) / 2


def test_ndcg_equals_the_one_computed_by_hand(folder, tmp_path):
    scores = scores_of(LocalRetrieval(folder), tmp_path / "out")
    # mteb rounds to five digits.
    assert scores["ndcg_at_10"] == pytest.approx(by_hand(), abs=1e-5)
    assert scores["main_score"] == scores["ndcg_at_10"]
    assert scores["recall_at_10"] == 1
    assert scores["mrr_at_10"] == pytest.approx((1 / 2 + 1 / 5) / 2, abs=1e-5)


def test_what_a_folder_lacks_counts_as_in_mteb(folder, tmp_path):
    """q1 ranks d0 d1 d2 d3 d4; d1 and a missing document are relevant, d0 is -1; q2 has none."""
    judged = ["q1 d1 1", "q1 nowhere 1", "q1 d0 -1", "q2 d4 0", "gone d4 1"]
    write_judgements(folder, judged)
    right = (1 / math.log2(3)) / (1 + 1 / math.log2(3)) / 2
    task = LocalRetrieval(folder)
    scores = scores_of(task, tmp_path / "out")
    assert scores["ndcg_at_10"] == pytest.approx(right, abs=1e-5)
    assert scores["recall_at_10"] == pytest.approx(0.25)
    assert task.notes == (
        "1 of 4 judgements are of documents that corpus.jsonl lacks: never retrieved",
        "1 judgements are of queries that queries.jsonl lacks: left out",
    )
    (ranking, other) = read_rankings(tmp_path / "out", "five").values()
    assert (ranking.rank, [name for name, _ in ranking.best]) == (2, ["d0", "d1", "d2"])
    assert other.rank is None

    class Compact(Angles):
        width = 2

        def encode(
            self, texts, instruction=None, show_progress=False, *, dimensions=None, prompt=None
        ):
            del dimensions, prompt
            return super().encode(texts, instruction, show_progress)

    compact = embed(Compact(), read_retrieval(folder), "")
    places = rescore.first_stage(
        compact.queries, Store.of(compact.documents, "float32"), compact.depth
    )[1]
    assert score(compact, places) == pytest.approx(right, abs=1e-5)


def test_a_query_that_is_a_document_does_not_retrieve_itself(folder, tmp_path):
    """As in ArguAna, whose arguments are documents too: mteb omits a document with the same id."""
    (folder / "queries.jsonl").write_text('{"_id": "d0", "text": "d0"}\n')
    write_judgements(folder, ["d0 d2 1"])
    task = LocalRetrieval(folder)
    assert scores_of(task, tmp_path / "a")["mrr_at_10"] == 0.5  # d1 d2
    assert task.notes == (
        "1 queries are documents with the same id: "
        "a query does not retrieve the document with its own id",
    )
    data = read_retrieval(folder)
    assert data.skips_own
    # Where the document with the query's id is the answer, it is retrieved.
    write_judgements(folder, ["d0 d0 1"])
    assert scores_of(LocalRetrieval(folder), tmp_path / "b")["ndcg_at_10"] == 1
    compact = EmbeddedTask(
        np.zeros((1, 2), np.float32), np.zeros((5, 2), np.float32), [{2: 1}], [0]
    )
    assert compact.depth == 11
    assert score(compact, np.array([[0, 1, 2, 3, 4]])) == pytest.approx(1 / math.log2(3))


def test_mteb_s_own_result_is_written_below_the_output(folder, tmp_path):
    scores = evaluate(JaxEncoder(Angles(), PAPER), [LocalRetrieval(folder)], tmp_path / "out")
    written = json.loads((tmp_path / "out" / "five.json").read_text())
    assert written["scores"]["test"][0]["main_score"] == pytest.approx(scores["five"]["main_score"])


def test_a_loaded_task_can_be_evaluated_again(folder, tmp_path):
    task = LocalRetrieval(folder)
    first, second = (evaluate(JaxEncoder(Angles(), PAPER), [task], tmp_path) for _ in range(2))
    assert first == second


def test_bm25_is_scored_by_the_same_metrics_and_an_unanswered_query_scores_nothing(
    folder, tmp_path
):
    # Queries share no term with documents but q2, whose text is made that of its right document.
    (folder / "queries.jsonl").write_text(
        '{"_id": "q1", "text": "unheard"}\n{"_id": "q2", "text": "d0"}\n'
    )
    assert evaluate(BM25(), [LocalRetrieval(folder)], tmp_path / "out")["five"][
        "ndcg_at_10"
    ] == pytest.approx(0.5)


def test_a_task_without_retrieval_scores_has_its_main_score_only(tmp_path):
    task = MockSTSTask()
    task.load_data()
    words = sorted(
        {text for column in ("sentence1", "sentence2") for text in task.dataset["test"][column]}
    )

    class Known:
        tokenizer = SimpleNamespace(limit=512, templates=E5)

        def encode(self, texts, instruction=None, show_progress=False, *, normalise=True):
            del instruction, show_progress, normalise
            return np.array(
                [np.eye(len(words))[words.index(text)] + 0.1 * words.index(text) for text in texts],
                np.float32,
            )

    assert set(evaluate(JaxEncoder(Known(), PAPER), [task], tmp_path)["MockSTSTask"]) == {
        "main_score"
    }


SETTINGS = {"model": "one"}


class Counting(Angles):
    """Says how many texts it was asked for, and with which limit."""

    def __init__(self):
        self.tokenizer = SimpleNamespace(limit=512, templates=E5)
        self.asked: list[str] = []
        self.limits: list[int] = []

    def encode(self, texts, instruction=None, show_progress=False, *, normalise=True):
        self.asked += texts
        self.limits.append(self.tokenizer.limit)
        return super().encode(texts, instruction, show_progress, normalise=normalise)


def renamed(folder: Path, name: str, **settings: object) -> Path:
    other = folder.with_name(name)
    shutil.copytree(folder, other)
    if settings:
        (other / "task.json").write_text(json.dumps({"instruction": "", **settings}))
    return other


def test_only_tasks_that_are_missing_are_run_again(folder, tmp_path):
    embedder = Counting()
    tasks = [LocalRetrieval(folder), LocalRetrieval(renamed(folder, "six"))]
    first = evaluate(JaxEncoder(embedder, PAPER), tasks, tmp_path / "out", SETTINGS)
    once = len(embedder.asked)
    (tmp_path / "out" / "six.json").unlink()
    assert evaluate(JaxEncoder(embedder, PAPER), tasks, tmp_path / "out", SETTINGS) == first
    assert len(embedder.asked) == once + once // 2
    assert evaluate(JaxEncoder(embedder, PAPER), tasks, tmp_path / "out", SETTINGS) == first
    assert len(embedder.asked) == once + once // 2


def test_a_result_of_other_data_is_not_kept(folder, tmp_path):
    embedder = Counting()
    evaluate(JaxEncoder(embedder, PAPER), [LocalRetrieval(folder)], tmp_path / "out", SETTINGS)
    once = len(embedder.asked)
    write_judgements(folder, ["q1 d0 1"])
    assert (
        evaluate(JaxEncoder(embedder, PAPER), [LocalRetrieval(folder)], tmp_path / "out", SETTINGS)[
            "five"
        ]["main_score"]
        == 1
    )
    assert len(embedder.asked) > once


def test_results_of_another_model_are_refused(folder, tmp_path):
    evaluate(JaxEncoder(Angles(), PAPER), [LocalRetrieval(folder)], tmp_path / "out", SETTINGS)
    with pytest.raises(
        ConfigError, match=r"model: 'one' there, 'two' here.*choose another --output"
    ):
        evaluate(
            JaxEncoder(Angles(), PAPER),
            [LocalRetrieval(folder)],
            tmp_path / "out",
            {"model": "two"},
        )


def test_scores_by_query_have_the_main_score_as_their_mean(folder, tmp_path):
    scores = scores_of(LocalRetrieval(folder), tmp_path / "out")
    by_query = read_queries(tmp_path / "out", "five", describe(LocalRetrieval(folder)))
    assert set(by_query) == {"test/default/q1", "test/default/q2"}
    assert np.mean(list(by_query.values())) == pytest.approx(scores["main_score"], abs=1e-5)


def test_a_task_may_need_longer_texts_and_the_next_one_does_not(folder, tmp_path):
    embedder = Counting()
    evaluate(
        JaxEncoder(embedder, PAPER),
        [LocalRetrieval(renamed(folder, "long", limit=4_096)), LocalRetrieval(folder)],
        tmp_path / "out",
    )
    assert list(dict.fromkeys(embedder.limits)) == [4_096, 512]


def test_vectors_are_computed_once_for_the_same_texts_put_the_same_way(folder, tmp_path):
    embedder = Counting()

    def run(instruction: str = "", of: str = "one", limit: int = 512) -> int:
        before = len(embedder.asked)
        embedder.tokenizer.limit = limit
        encoder = JaxEncoder(embedder, PAPER, instruction)
        encoder.cache = VectorCache(tmp_path / "vectors", of)
        assert evaluate(encoder, [LocalRetrieval(folder)], tmp_path / "out")["five"][
            "ndcg_at_10"
        ] == pytest.approx(by_hand(), abs=1e-5)
        return len(embedder.asked) - before

    everything = run()
    assert everything == 7
    assert run() == 0
    assert run(instruction="find it") == 2  # queries; documents are bare in both
    assert run(of="two") == everything
    assert run(limit=100) == everything


def test_a_task_made_of_others_goes_on_with_the_part_that_is_missing(tmp_path):
    task = MockAggregatedTask()
    parts = [part.metadata.name for part in task.tasks]
    system = Recorder(lambda *_: None)
    first = evaluate(system, [task], tmp_path, SETTINGS)
    assert set(first) == {task.metadata.name}
    assert {path.stem for path in tmp_path.glob("*.json")} == {
        task.metadata.name,
        *parts,
        "settings",
    }
    times = {name: (tmp_path / f"{name}.json").stat().st_mtime_ns for name in parts}
    for name in (task.metadata.name, parts[0]):
        (tmp_path / f"{name}.json").unlink()
    assert evaluate(system, [MockAggregatedTask()], tmp_path, SETTINGS).keys() == first.keys()
    again = {name: (tmp_path / f"{name}.json").stat().st_mtime_ns for name in parts}
    assert [name for name in parts if again[name] != times[name]] == parts[:1]


class Fixed(Angles):
    """Vectors that tell nothing but differ by text, and how many texts there were."""

    def __init__(self):
        self.texts = 0

    def encode(self, texts, instruction=None, show_progress=False, *, normalise=True):
        del instruction, show_progress, normalise
        self.texts += len(texts)
        return np.stack(
            [
                np.random.default_rng(zlib.crc32(text.encode())).standard_normal(8, np.float32)
                for text in texts
            ]
        )


def test_a_score_is_of_the_task_s_own_subsets_and_a_result_that_has_more_is_finished_for_fewer(
    tmp_path,
):
    whole, part = (
        MockMultilingualSTSTask(),
        MockMultilingualSTSTask().filter_languages(None, hf_subsets=["eng"]),
    )
    embedder = Fixed()

    def run(task, name):
        return evaluate(JaxEncoder(embedder, PAPER), [task], tmp_path / name, SETTINGS)[
            "MockMultilingualSTSTask"
        ]["main_score"]

    run(whole, "both")
    path = tmp_path / "both/MockMultilingualSTSTask.json"
    result = json.loads(path.read_text())
    by_subset = {entry["hf_subset"]: entry for entry in result["scores"]["test"]}
    assert set(by_subset) == {"eng", "fra"}
    by_subset["eng"]["main_score"], by_subset["fra"]["main_score"] = (
        0.75,
        0.25,
    )  # the mock's are equal
    path.write_text(json.dumps(result))
    before = embedder.texts
    assert (run(part, "both"), run(whole, "both")) == (0.75, 0.5)
    assert embedder.texts == before, "the result has what the tasks need"
    assert describe(part).label == "test/eng"
    run(part, "one")
    before = embedder.texts
    run(whole, "one")
    assert embedder.texts > before, "the result lacked a subset"
