"""The switches of the objective: against their definition in float64, sentence-transformers, and known values."""

from dataclasses import replace
from functools import partial

import jax
import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.losses import (
    MatryoshkaLoss,
    MultipleNegativesRankingLoss,
)

from e5jax.config import Loss
from e5jax.train.loss import contrast
from e5jax.train.negatives import BatchInfo
from tests import tiny
from tests.train import exact
from tests.train.test_loss import alike, compiled, distance, known, vectors

ALL = ("query_to_doc", "doc_to_query", "query_to_query", "doc_to_doc")
PAIRS, EACH = 16, 3
PROGRAMS: dict[str, jax.stages.Compiled] = {}
LOSSES = {
    "plain": Loss(0.05),
    "both ways": Loss(0.05, directions=("query_to_doc", "doc_to_query"), partition="per_direction"),
    "four ways": Loss(0.05, directions=ALL),
    "without duplicates": Loss(0.05, mask_duplicates=True),
    "margin": Loss(
        0.05,
        directions=("query_to_doc", "query_to_query", "doc_to_doc"),
        margin=0.1,
        mask_duplicates=True,
    ),
    "ratio": Loss(0.05, margin=0.95, margin_kind="ratio"),
    "hardness": Loss(0.05, hardness_strength=9.0, hardness_mode="in_batch_negatives"),
    "smooth": Loss(0.05, directions=("query_to_doc", "doc_to_query"), smoothing=0.2),
    "smooth apart": Loss(
        0.05,
        directions=("query_to_doc", "doc_to_query"),
        partition="per_direction",
        smoothing=0.2,
        mask_duplicates=True,
    ),
    "everything": Loss(
        temperature=0.05,
        block=5,
        directions=ALL,
        mask_duplicates=True,
        margin=0.1,
        hardness_strength=5.0,
        smoothing=0.1,
        dimensions=(32, 8),
        weights=(1.0, 0.5),
    ),
}


def ragged(seed: int, positives: int = 1) -> tuple[np.ndarray, np.ndarray, BatchInfo]:
    """Pairs of any kind, some of whose texts are the same; positives near their queries, some hard negatives nearer."""
    random = np.random.default_rng(seed)
    q, p = vectors(PAIRS, PAIRS * EACH, seed)
    p[positives::EACH] = np.where(random.random((PAIRS, 1)) < 0.3, q, p[positives::EACH])
    hard = random.integers(0, EACH - positives + 1, (PAIRS, 1))
    count, place = random.integers(1, positives + 1, (PAIRS, 1)), np.arange(EACH)
    there = np.where(place < positives, place < count, place - positives < hard)
    in_batch = (random.random(PAIRS) < 0.7) | (hard[:, 0] == 0)
    queries, passages = random.integers(0, 12, PAIRS), random.integers(8, 40, PAIRS * EACH)
    temperatures = random.choice(np.array([0.05, 0.2], np.float32), PAIRS)
    terms = BatchInfo(
        temperatures,
        in_batch,
        queries.astype(np.int32),
        np.where(there.ravel(), passages, -1).astype(np.int32),
    )
    return q, p, terms


def run(
    loss: Loss,
    sizes: tuple[int, int, int],
    q: np.ndarray,
    p: np.ndarray,
    terms: BatchInfo,
    positives: int = 1,
) -> tuple:
    """((loss, accuracy), gradients), by a program that is compiled once."""
    on, key = tiny.mesh(*sizes), f"{loss} {sizes} {q.shape} {p.shape} {positives}"
    if key not in PROGRAMS:
        PROGRAMS[key] = compiled(
            [q.shape, p.shape], loss, on, partial(contrast, positives=positives)
        )
    return jax.device_get(
        PROGRAMS[key](*tiny.rows(on, q, p), BatchInfo._make(tiny.rows(on, *terms)))
    )


def assert_close(found: tuple, wanted: tuple) -> None:
    (loss, accuracy), gradients = found
    assert loss == pytest.approx(wanted[0][0], rel=1e-5, abs=1e-6)
    assert accuracy == pytest.approx(wanted[0][1], abs=1e-6)
    for gradient, one in zip(gradients, wanted[1], strict=True):
        assert distance(gradient, one) <= 1e-5


@pytest.mark.parametrize("name", LOSSES)
def test_loss_accuracy_and_gradients_are_those_of_the_definition(name):
    for seed in range(5):
        q, p, terms = ragged(seed)
        assert_close(
            run(LOSSES[name], (1, 1, 1), q, p, terms), exact.infonce(q, p, terms, LOSSES[name])
        )


@pytest.mark.parametrize("scores", ["dense", "chunked", "ring"])
@pytest.mark.parametrize("name", ["four ways", "margin", "everything"])
def test_neither_devices_nor_blocks_nor_the_ring_change_anything(name, scores):
    for seed in range(2):
        q, p, terms = ragged(seed)
        loss = replace(LOSSES[name], scores=scores)
        assert_close(run(loss, (4, 2, 1), q, p, terms), exact.infonce(q, p, terms, loss))


@pytest.mark.parametrize(
    ("scores", "sizes"),
    [("dense", (1, 1, 1)), *((scores, (4, 2, 1)) for scores in ("dense", "chunked", "ring"))],
)
def test_each_of_several_positives_is_a_pair_and_no_negative_of_the_others(scores, sizes):
    for seed in range(3):
        q, p, terms = ragged(seed, positives=2)
        assert 0 < np.sum(terms.passages[1::EACH] < 0) < PAIRS
        loss = replace(LOSSES["everything"], scores=scores)
        assert_close(run(loss, sizes, q, p, terms, 2), exact.infonce(q, p, terms, loss, 2))


def test_a_query_with_two_positives_has_the_mean_loss_of_two_with_one_each():
    q, p = vectors(PAIRS, PAIRS * EACH, seed=3)
    apart = known(
        np.full(PAIRS, 0.05, np.float32), np.zeros(PAIRS, np.bool_), np.ones(PAIRS * EACH, np.bool_)
    )
    (both, _), _ = run(LOSSES["plain"], (1, 1, 1), q, p, apart, 2)
    parts = []
    for other in (1, 0):
        there = np.arange(PAIRS * EACH) % EACH != other
        (one, _), _ = run(
            LOSSES["plain"], (1, 1, 1), q, p[there], apart._replace(passages=apart.passages[there])
        )
        parts.append(one)
    assert abs(parts[0] - parts[1]) > 0.1
    assert both == pytest.approx(np.mean(parts), rel=1e-6)


@pytest.mark.parametrize("scores", ["dense", "chunked"])
def test_the_loss_of_gte_has_its_known_values(scores):
    same, collapsed = (
        np.eye(8, 32, dtype=np.float32),
        np.eye(1, 32, dtype=np.float32).repeat(8, axis=0),
    )
    loss = Loss(directions=ALL, scores=scores, block=7)
    for temperature, wanted in [
        (0.5, 1.7560265745),
        (0.05, 0.6931472094),
        (0.01, 0.6931471806),
    ]:  # it has no smaller than log 2
        assert run(loss, (1, 1, 1), same, same, alike(8, 8, temperature))[0][0] == pytest.approx(
            wanted, abs=1e-6
        )
    assert run(loss, (1, 1, 1), collapsed, collapsed, alike(8, 8, 1.0))[0][0] == pytest.approx(
        3.4011973817, abs=1e-6
    )  # log 30


HARDER = ("all_negatives", "hard_negatives", "in_batch_negatives")


@pytest.mark.parametrize(
    "loss",
    [
        Loss(0.05, directions=("query_to_doc", "doc_to_query"), partition="per_direction"),
        Loss(0.05, directions=ALL),
        *(Loss(0.05, hardness_strength=5.0, hardness_mode=mode) for mode in HARDER),
        Loss(0.05, dimensions=(32, 16, 4), weights=(1.0, 0.7, 0.3)),
    ],
    ids=lambda loss: (
        f"{len(loss.directions)}-{loss.partition}-{loss.hardness_mode if loss.hardness_strength else ''}-{len(loss.dimensions)}"
    ),
)
def test_loss_and_gradients_are_those_of_sentence_transformers(loss):
    q, p = vectors(PAIRS, PAIRS * EACH, seed=1)
    (value, _), gradients = run(loss, (1, 1, 1), q, p, alike(PAIRS, PAIRS * EACH, 0.05))
    model = SentenceTransformer(modules=[torch.nn.Identity()])
    theirs = MultipleNegativesRankingLoss(
        model,
        scale=1 / 0.05,
        directions=loss.directions,
        partition_mode=loss.partition,
        hardness_mode=loss.hardness_mode if loss.hardness_strength else None,
        hardness_strength=loss.hardness_strength,
    )
    if loss.dimensions:
        theirs = MatryoshkaLoss(model, theirs, list(loss.dimensions), list(loss.weights))
    tensors = [torch.from_numpy(x).requires_grad_() for x in (q, p)]
    columns = [tensors[0], *tensors[1].reshape(PAIRS, EACH, 32).unbind(1)]
    wanted = theirs([{"sentence_embedding": column} for column in columns], labels=None)
    wanted.backward()
    assert value == pytest.approx(wanted.item(), abs=1e-5)
    for gradient, x, tensor in zip(gradients, (q, p), tensors, strict=True):
        # They normalise: their gradient has no part along the vector. Scores reach 20, of which float32 keeps 2e-6.
        across = gradient - np.sum(gradient * x, axis=-1, keepdims=True) * x
        assert np.linalg.norm(across - tensor.grad.numpy()) <= 1e-4 * np.linalg.norm(
            tensor.grad.numpy()
        )


@pytest.mark.parametrize("scores", ["dense", "chunked", "ring"])
def test_a_positive_that_is_also_anothers_is_no_negative_of_it_on_any_device(scores):
    q, p = vectors(PAIRS, PAIRS * EACH, seed=2)
    last = (PAIRS - 1) * EACH  # of the last device; the pair it belongs to asks for nothing itself
    terms = known(
        np.full(PAIRS, 0.05, np.float32), np.arange(PAIRS) == 0, np.arange(PAIRS * EACH) % EACH == 0
    )
    terms.passages[last] = terms.passages[0]
    for mask in (True, False):
        loss = Loss(0.05, scores, 5, ("query_to_doc",), mask_duplicates=mask)
        _, (_, of_passages) = run(loss, (4, 2, 1), q, p, terms)
        assert of_passages[last].any() != mask
        assert of_passages[EACH].any()  # another positive is


def test_a_pair_with_nothing_to_tell_it_from_has_no_loss_and_no_gradient():
    q, p, terms = ragged(0)
    terms = terms._replace(
        queries=np.zeros_like(terms.queries),
        passages=np.where(terms.passages < 0, -1, 1).astype(np.int32),
    )
    loss = Loss(
        0.05,
        directions=("query_to_doc", "doc_to_query"),
        partition="per_direction",
        mask_duplicates=True,
    )
    (value, accuracy), gradients = run(loss, (1, 1, 1), q, p, terms)
    assert (value, accuracy) == (0, 1)
    assert not any(gradient.any() for gradient in gradients)


def test_a_margin_that_leaves_no_negative_leaves_no_loss_and_no_gradient():
    q, p = vectors(PAIRS, PAIRS * EACH, seed=4)
    p[1::EACH] = p[2::EACH] = q  # score 1
    apart = known(
        np.full(PAIRS, 0.05, np.float32), np.zeros(PAIRS, np.bool_), np.ones(PAIRS * EACH, np.bool_)
    )
    for directions, least in [
        (("query_to_doc",), 0),
        (("query_to_doc", "doc_to_query"), np.log(2)),
    ]:
        (value, accuracy), gradients = run(
            Loss(0.05, directions=directions, margin=0.1), (1, 1, 1), q, p, apart
        )
        assert value == pytest.approx(least, abs=1e-6)
        assert accuracy == 1
        assert not any(gradient.any() for gradient in gradients)


@pytest.mark.parametrize("scores", ["dense", "chunked"])
@pytest.mark.parametrize("name", ["plain", "margin"])
def test_what_is_no_number_shows_in_the_loss(name, scores):
    q, p, terms = ragged(0)
    q[terms.in_batch.argmax()] = np.nan
    (value, _), _ = run(replace(LOSSES[name], scores=scores), (1, 1, 1), q, p, terms)
    assert np.isnan(value)
