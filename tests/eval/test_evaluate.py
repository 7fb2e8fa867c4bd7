import json
import math

import numpy as np
import pytest
from mteb.mocks.mock_tasks import MockSTSTask

from e5jax.data.beir import read_retrieval
from e5jax.eval.backends import JaxEncoder
from e5jax.eval.bm25 import BM25
from e5jax.eval.evaluate import evaluate
from e5jax.eval.preset import PRESETS
from e5jax.eval.quantization_study import EmbeddedTask, embed, score
from e5jax.eval.queries import read_queries, read_rankings
from e5jax.eval.tasks import LocalRetrieval, describe
from e5jax.inference import rescore
from e5jax.inference.vector_quantization import Store
from tests.beir import write_judgements
from tests.eval.stand_in import StandIn, angle, ndcg_of_five

PAPER = PRESETS["paper"]


@pytest.fixture
def metrics(tmp_path):
    """Evaluates a task with vectors by angle."""

    def run(task, system=None):
        system = system or JaxEncoder(StandIn(angle), PAPER)
        return evaluate(system, [task], tmp_path / "out")[task.metadata.name]

    return run


def test_ndcg_equals_the_one_computed_by_hand(five, metrics):
    scores = metrics(LocalRetrieval(five))
    # mteb rounds to five digits.
    assert scores["ndcg_at_10"] == pytest.approx(ndcg_of_five(), abs=1e-5)
    assert scores["main_score"] == scores["ndcg_at_10"]
    assert scores["recall_at_10"] == 1
    assert scores["mrr_at_10"] == pytest.approx((1 / 2 + 1 / 5) / 2, abs=1e-5)


def test_what_a_folder_lacks_counts_as_in_mteb(five, metrics, tmp_path):
    """q1 ranks d0 to d4; d1 and a missing document are relevant, d0 is -1; q2 has none."""
    write_judgements(five, ["q1 d1 1", "q1 nowhere 1", "q1 d0 -1", "q2 d4 0", "gone d4 1"])
    ndcg = (1 / math.log2(3)) / (1 + 1 / math.log2(3)) / 2
    task = LocalRetrieval(five)
    scores = metrics(task)
    assert scores["ndcg_at_10"] == pytest.approx(ndcg, abs=1e-5)
    assert scores["recall_at_10"] == pytest.approx(0.25)
    assert task.notes == (
        "1 of 4 judgements are of documents that corpus.jsonl lacks: never retrieved",
        "1 judgements are of queries that queries.jsonl lacks: left out",
    )
    (ranking, other) = read_rankings(tmp_path / "out", "five").values()
    assert (ranking.rank, [name for name, _ in ranking.best]) == (2, ["d0", "d1", "d2"])
    assert other.rank is None

    class Compact(StandIn):
        width = 2

        def encode(self, texts, *, show_progress=False, dimensions=None, prompt=None):
            del dimensions, prompt
            return super().encode(texts, show_progress=show_progress)

    compact = embed(Compact(angle), read_retrieval(five), "")
    store = Store.of(compact.documents, "float32")
    places = rescore.first_stage(compact.queries, store, compact.depth)[1]
    assert score(compact, places) == pytest.approx(ndcg, abs=1e-5)


def test_a_query_that_is_a_document_does_not_retrieve_itself(five, metrics):
    """As in ArguAna, whose arguments are documents too: mteb omits a document with the same id."""
    (five / "queries.jsonl").write_text('{"_id": "d0", "text": "d0"}\n')
    write_judgements(five, ["d0 d2 1"])
    task = LocalRetrieval(five)
    assert metrics(task)["mrr_at_10"] == 0.5  # d1 d2
    assert task.notes == (
        "1 queries are documents with the same id: "
        "a query does not retrieve the document with its own id",
    )
    assert read_retrieval(five).skips_own
    # If the document with the query's id is the answer, it is retrieved.
    write_judgements(five, ["d0 d0 1"])
    assert metrics(LocalRetrieval(five))["ndcg_at_10"] == 1
    vectors = np.zeros((5, 2), np.float32)
    compact = EmbeddedTask(vectors[:1], vectors, [{2: 1}], [0])
    assert compact.depth == 11
    assert score(compact, np.array([[0, 1, 2, 3, 4]])) == pytest.approx(1 / math.log2(3))


def test_mtebs_own_result_is_written_below_the_output(five, metrics, tmp_path):
    scores = metrics(LocalRetrieval(five))
    result = json.loads((tmp_path / "out" / "five.json").read_text())
    assert result["scores"]["test"][0]["main_score"] == pytest.approx(scores["main_score"])


def test_a_loaded_task_can_be_evaluated_again(five, metrics):
    task = LocalRetrieval(five)
    assert metrics(task) == metrics(task)


def test_bm25_has_the_same_metrics_and_an_unanswered_query_scores_nothing(five, metrics):
    # Queries share no term with documents except q2, whose text is that of its document.
    queries = '{"_id": "q1", "text": "unheard"}\n{"_id": "q2", "text": "d0"}\n'
    (five / "queries.jsonl").write_text(queries)
    assert metrics(LocalRetrieval(five), BM25())["ndcg_at_10"] == pytest.approx(0.5)


def test_a_task_without_retrieval_has_its_main_score_only(metrics):
    task = MockSTSTask()
    task.load_data()
    columns = (task.dataset["test"][column] for column in ("sentence1", "sentence2"))
    words = sorted({text for column in columns for text in column})
    model = StandIn(lambda text: np.eye(len(words))[words.index(text)] + 0.1 * words.index(text))
    assert set(metrics(task, JaxEncoder(model, PAPER))) == {"main_score"}


def test_scores_by_query_have_the_main_score_as_their_average(five, metrics, tmp_path):
    task = LocalRetrieval(five)
    scores = metrics(task)
    by_query = read_queries(tmp_path / "out", "five", describe(task))
    assert set(by_query) == {"test/default/q1", "test/default/q2"}
    assert np.mean(list(by_query.values())) == pytest.approx(scores["main_score"], abs=1e-5)
