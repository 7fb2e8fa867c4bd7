"""Retrieval while training: the scores of mteb, and one compiled shape."""

import json
import math
from pathlib import Path

import jax
import numpy as np
import pytest

from e5jax.config.validate import validate
from e5jax.data import beir
from e5jax.errors import ConfigError
from e5jax.inference.embedder import Embedder
from e5jax.train import loop
from e5jax.train.build import build_step
from e5jax.train.probe import Probe
from e5jax.workdir.directory import Workdir
from tests.train.test_loop import WORDS, inputs_for, place, rows, scratch_run

__all__ = ["place"]  # a fixture


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """40 documents of very different lengths, with titles; a query has several right ones, of two grades, one of them missing."""
    root = tmp_path_factory.mktemp("probe") / "small"
    (root / "qrels").mkdir(parents=True)
    random = np.random.default_rng(3)

    def words(count: int) -> str:
        return " ".join(random.choice(WORDS, count))

    corpus = [
        {"_id": f"d{i}", "title": words(1) if i % 3 else "", "text": words(i % 9)}
        for i in range(40)
    ]
    queries = [{"_id": f"q{i}", "text": words(1 + i % 4)} for i in range(11)]
    for name, lines in [("corpus", corpus), ("queries", queries)]:
        (root / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    pairs = [f"q{i}\td{(5 * i + j) % 40}\t{1 + j % 2}" for i in range(11) for j in range(1 + i % 3)]
    pairs += ["q5\tmissing\t2", "q6\td0\t-1"]
    (root / "qrels" / "test.tsv").write_text(
        "\n".join(["query-id\tcorpus-id\tscore", *pairs]) + "\n"
    )
    (root / "task.json").write_text(json.dumps({"instruction": "find it"}))
    return root


def probed(root: Path, folder: Path, **changed):
    run = scratch_run(root)
    run.probe.every, run.probe.folders = 2, (str(folder),)
    for name, value in changed.items():
        setattr(run.probe, name, value)
    return run


def ndcg(scores: np.ndarray, grades: np.ndarray) -> float:
    order = np.argsort(-scores, axis=1, kind="stable")
    return beir.ndcg(np.take_along_axis(grades, order, axis=1), grades)


def test_ndcg_equals_the_one_computed_by_hand():
    scores = np.array([[0.9, 0.8, 0.7, 0.1], [0.1, 0.2, 0.3, 0.4]])
    grades = np.array([[0, 2, 0, 1], [0, 0, 0, 1]])
    first = (2 / math.log2(3) + 1 / math.log2(5)) / (2 + 1 / math.log2(3))
    assert ndcg(scores, grades) == pytest.approx((first + 1) / 2)
    many = np.arange(20.0)[None]
    assert ndcg(-many, (many == 9).astype(float)) == pytest.approx(1 / math.log2(11))
    assert ndcg(-many, (many == 10).astype(float)) == 0


def test_a_run_logs_what_mteb_gives_its_export(place, folder, tmp_path):
    from e5jax.eval.backends import JaxEncoder  # noqa: PLC0415  PyTorch and mteb, for this test only
    from e5jax.eval.evaluate import evaluate  # noqa: PLC0415
    from e5jax.eval.preset import PRESETS  # noqa: PLC0415
    from e5jax.eval.tasks import LocalRetrieval  # noqa: PLC0415
    from e5jax.export.folder import export  # noqa: PLC0415

    run = probed(place, folder)
    run.optim.steps = 3
    inputs = inputs_for(run)
    assert loop.train(run, inputs, Workdir(tmp_path / "probed"), "probed") == run.optim.steps
    logged = rows(tmp_path / "probed")
    assert [row["step"] for row in logged if "probe/small/ndcg_at_10" in row] == [2, 3]

    run.export.dtype = "float32"
    export(
        run,
        inputs.base,
        inputs.spec,
        inputs.tokenizer,
        Workdir(tmp_path / "probed"),
        tmp_path / "export",
    )
    encoder = JaxEncoder(
        Embedder.from_pretrained(tmp_path / "export", dtype="float32"), PRESETS["paper"]
    )
    ndcg = evaluate(encoder, [LocalRetrieval(folder)], tmp_path / "mteb")["small"]["ndcg_at_10"]
    # mteb rounds to five digits; two documents with about one score may change places.
    assert logged[-1]["probe/small/ndcg_at_10"] == pytest.approx(ndcg, abs=1e-3)
    assert 0.05 < ndcg < 0.95, (
        "neither nothing nor everything is found, or the line above would prove little"
    )


def test_all_sets_share_one_compiled_shape_and_a_part_of_a_set_is_a_set(place, folder):
    run = probed(place, folder, queries=4, documents=9)
    inputs = inputs_for(run)
    mesh = loop.make_mesh(run.mesh)
    learner = build_step(run, inputs.spec, "cpu")
    made = learner.model_def
    with jax.set_mesh(mesh):
        trained = made.initialise(made.trained, mesh, 0)
        few = Probe(run, inputs.tokenizer, learner.objective, mesh)
        (one,) = few._sets.values()
        assert one.grades.shape == (4, 9)
        assert one.grades.any(axis=1).all()
        run.probe.documents, run.probe.queries = 2_000, 200
        probe = Probe(run, inputs.tokenizer, learner.objective, mesh)
        (whole,) = probe._sets.values()
        assert whole.grades.shape == (11, 41)  # one is missing
        assert len(whole.rows.tokens) > 1, "more than one part"
        probe._sets = {"few": one, "whole": whole}
        assert set(probe.scores(trained, {})) == {"probe/few/ndcg_at_10", "probe/whole/ndcg_at_10"}
        assert probe._embed._cache_size() == 1


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"every": 0}, r"set both, or neither"),
        ({"folders": ()}, "set both"),
        ({"queries": 0}, "queries=0"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(place, folder, changed, message):
    from e5jax.config import Config  # noqa: PLC0415

    run = probed(place, folder, **changed)
    config = Config(
        stages=("train",),
        **{name: getattr(run, name) for name in ("data", "tokens", "model", "batch", "probe")},
    )
    with pytest.raises(ConfigError, match=message):
        validate(config)


def test_two_folders_of_one_name_are_refused(place, folder, tmp_path):
    run = probed(place, folder, folders=(str(folder), str(folder)))
    with pytest.raises(ConfigError, match="two have one name"):
        loop.train(run, inputs_for(run), Workdir(tmp_path), "twice")
