"""`e5jax compact`: every number on the page is measured and in `results.json`."""

import html
import json
import re
from pathlib import Path

import numpy as np
import pytest

from e5jax.cli import main
from e5jax.config.commands import CompactOptions
from e5jax.data.beir import read_retrieval
from e5jax.errors import CONFIG, USAGE
from e5jax.eval import quantization_study
from e5jax.eval.backends import make_encoder, settings_of
from e5jax.eval.evaluate import evaluate
from e5jax.eval.quantization_study import (
    embed,
    halves,
    queries_per_second,
    score,
    write_report,
)
from e5jax.eval.report import PAGE, RESULTS
from e5jax.eval.tasks import LocalRetrieval
from e5jax.inference.embedder import Embedder
from e5jax.inference.vector_quantization import Store
from e5jax.report.results import read_results
from tests.beir import write_beir
from tests.eval.folder import save_tiny

WORDS = [f"word{number:02}" for number in range(22)]


@pytest.fixture(scope="module")
def task(tmp_path_factory) -> Path:
    random = np.random.default_rng(0)
    documents = {f"d{i}": " ".join(random.choice(WORDS, 6)) for i in range(60)}
    queries = {f"q{i}": " ".join(documents[f"d{i}"].split()[1:]) for i in range(20)}
    judgements = [f"q{i} d{i} 2" for i in range(20)]
    judgements += [f"q{i} d{i + 20} 1" for i in range(0, 20, 2)]
    folder = tmp_path_factory.mktemp("compact") / "words"
    return write_beir(
        folder, documents, queries, [*judgements, "q1 d50 0"], instruction="Find the words"
    )


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("model"), WORDS)


@pytest.fixture(scope="module")
def output(task, model, tmp_path_factory) -> Path:
    to = tmp_path_factory.mktemp("measured")
    words = [
        "compact",
        f"--model={model}",
        f"--task={task}",
        f"--output={to}",
        "--dimensions=64,8",
        "--rows=50",
    ]
    assert main(words) == 0
    return to


def test_full_vectors_score_what_mteb_says(task, model, output, tmp_path):
    full = json.loads((output / RESULTS).read_text())["scores"]["64 float32"]["words"]
    settings = settings_of(model, "jax", "mteb-v2", None, "float32")
    expected = evaluate(
        make_encoder(model, settings), [LocalRetrieval(task)], tmp_path / "mteb", settings
    )["words"]["ndcg_at_10"]
    assert 0.05 < expected < 1
    assert full["ndcg_at_10"] == pytest.approx(expected, abs=2e-4)  # mteb rounds to five digits
    assert full["share_of_full"] == 1.0


def test_every_precision_has_its_bytes_and_scores(output):
    results = read_results(output / RESULTS)
    assert {
        "queries": "20",
        "documents": "60",
        "vectors in timed searches": "50",
        "candidates per result": "4",
    }.items() <= results.settings.items()
    assert {name: vectors.bytes_per_vector for name, vectors in results.vectors.items()} == {
        "64 float32": 256,
        "64 int8": 64,
        "64 binary": 8,
        "8 float32": 32,
        "8 int8": 8,
        "8 binary": 1,
    }
    scores = {name: by_task["words"]["ndcg_at_10"] for name, by_task in results.scores.items()}
    assert scores["64 int8"] == pytest.approx(scores["64 float32"], abs=0.03)
    assert scores["8 binary"] < scores["64 float32"]
    for name, vectors in results.vectors.items():
        assert vectors.queries_per_second > 0
        share = results.scores[name]["words"]["share_of_full"]
        assert share == pytest.approx(scores[name] / scores["64 float32"])


def test_every_number_on_the_page_is_in_the_results(output, tmp_path):
    page = (output / PAGE).read_text()
    shown = [
        [html.unescape(cell) for cell in re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row)]
        for row in re.findall("<tr>(.*?)</tr>", page)
    ]
    results = read_results(output / RESULTS)
    for row, (name, vectors) in zip(shown[1:7], results.vectors.items(), strict=True):
        metrics = results.scores[name]["words"]
        assert row == [
            str(vectors.dimensions),
            vectors.precision,
            str(vectors.bytes_per_vector),
            f"{metrics['ndcg_at_10']:.4f}",
            f"{metrics['share_of_full']:.1%}",
            f"{metrics['first_stage_ndcg_at_10']:.4f}",
            f"{vectors.queries_per_second:,.0f}",
        ]
    assert shown[7] == ["setting", "value"]
    assert page.count("<circle") == 2 * len(results.vectors)
    changed = json.loads((output / RESULTS).read_text())
    changed["settings"]["model"] = "<script>"
    changed["scores"]["64 float32"]["words"]["ndcg_at_10"] = 0.1234
    (tmp_path / RESULTS).write_text(json.dumps(changed))
    write_report(tmp_path)  # from the file alone
    again = (tmp_path / PAGE).read_text()
    assert "0.1234" in again
    assert "<script>" not in again


def test_a_query_without_a_relevant_document_scores_nothing_and_grades_count(task, model):
    data = read_retrieval(task)
    vectors = embed(
        Embedder.from_pretrained(model),
        data._replace(relevant={**data.relevant, "q1": {"d50": 0}}),
        "",
    )
    assert len(vectors.queries) == 20
    best = [sorted(by, key=by.get, reverse=True) + [59] * 10 for by in vectors.relevant]
    assert score(vectors, np.array([row[:10] for row in best])) == 19 / 20
    assert score(vectors, np.full((20, 10), 59)) == 0.0


def test_searches_are_timed_on_the_requested_rows(task, model, monkeypatch):
    vectors = embed(Embedder.from_pretrained(model), read_retrieval(task), "")
    sizes = []
    real = quantization_study._search
    monkeypatch.setattr(
        quantization_study,
        "_search",
        lambda q, store, o: (sizes.append(store.vectors.shape), real(q, store, o))[1],
    )
    assert (
        queries_per_second(
            vectors.queries,
            Store.of(vectors.documents, "binary"),
            CompactOptions("", Path(), Path(), rows=150),
        )
        > 0
    )
    assert sizes == [(150, 8)] * 4


def test_dimensions_are_halved_while_they_are_whole_bytes():
    assert halves(256) == (256, 128, 64, 32, 16)
    assert halves(40) == (40,)
    assert halves(4_096) == (4_096, 2_048, 1_024, 512, 256)


@pytest.mark.parametrize(
    ("option", "code", "message"),
    [
        ("--dimensions=65", CONFIG, "dimensions=65: vectors have 64"),
        ("--precisions=int4", USAGE, "'int4' is not one of float32, int8"),
    ],
)
def test_a_wrong_option_is_named(option, code, message, task, model, tmp_path, capsys):
    words = ["compact", f"--model={model}", f"--task={task}", f"--output={tmp_path}", option]
    try:
        status = main(words)
    except SystemExit as stopped:  # argparse's own
        status = stopped.code
    assert status == code
    assert message in capsys.readouterr().err
