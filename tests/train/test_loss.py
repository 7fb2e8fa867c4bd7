"""InfoNCE against NumPy in float64, against sentence-transformers, and its three ways of scoring against each other."""

import re
from collections.abc import Callable
from functools import cache, partial
from typing import NamedTuple

import jax
import numpy as np
import pytest
import torch
from jax.sharding import NamedSharding, PartitionSpec
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

from e5jax.config import Loss
from e5jax.mesh import BATCH
from e5jax.train.loss import infonce
from e5jax.train.negatives import BatchInfo
from tests import tiny
from tests.train import exact

MESHES = [(1, 1, 1), (8, 1, 1), (4, 2, 1), (2, 2, 2)]
SCORES = ["dense", "chunked", "ring"]
# Blocks that divide what a device holds, that do not, and that are larger than all passages.
STREAMED = [
    ("chunked", 8),
    ("chunked", 7),
    ("chunked", 1_000),
    ("ring", 2),
    ("ring", 5),
    ("ring", 1_000),
]


def unit(x: np.ndarray) -> np.ndarray:
    return (x / np.linalg.norm(x, axis=-1, keepdims=True)).astype(np.float32)


def vectors(queries: int, passages: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors; the first of each query's passages, its positive, lies near it."""
    random = np.random.default_rng(seed)
    q = random.standard_normal((queries, 32))
    p = random.standard_normal((passages, 32))
    p[:: passages // queries] += q
    return unit(q), unit(p)


def alike(queries: int, passages: int, temperature: float) -> BatchInfo:
    """No query lacks a negative or differs from the others."""
    return known(
        np.full(queries, temperature, np.float32),
        np.ones(queries, np.bool_),
        np.ones(passages, np.bool_),
    )


def known(temperatures: np.ndarray, in_batch: np.ndarray, there: np.ndarray) -> BatchInfo:
    """Of texts that are all different."""
    queries = np.arange(len(in_batch), dtype=np.int32)
    return BatchInfo(
        temperatures,
        in_batch,
        queries,
        np.where(there, len(queries) + np.arange(len(there)), -1).astype(np.int32),
    )


def mixed(queries: int, passages: int) -> BatchInfo:
    """Every combination of temperature, in-batch negatives and number of hard negatives."""
    number, place = np.arange(queries), np.arange(passages // queries)
    temperatures, in_batch = np.array([0.02, 0.5], np.float32)[number % 2], number // 2 % 2 == 0
    return known(temperatures, in_batch, (place <= number[:, None] // 4 % len(place)).ravel())


def compiled(
    shapes: list[tuple[int, int]], loss: Loss, on: jax.sharding.Mesh, of: Callable = infonce
) -> jax.stages.Compiled:
    """Loss, accuracy and both gradients of vectors whose rows are spread over the mesh."""
    spread = NamedSharding(on, PartitionSpec(BATCH))
    vectors = [jax.ShapeDtypeStruct(shape, np.float32, sharding=spread) for shape in shapes]
    (queries, _), (passages, _) = shapes
    dtypes = zip(
        (queries, queries, queries, passages),
        (np.float32, np.bool_, np.int32, np.int32),
        strict=True,
    )
    terms = BatchInfo._make(
        jax.ShapeDtypeStruct((count,), dtype, sharding=spread) for count, dtype in dtypes
    )
    run = jax.jit(jax.value_and_grad(partial(of, loss=loss), argnums=(0, 1), has_aux=True))
    with jax.set_mesh(on):
        return run.lower(*vectors, terms).compile()


def contrast(
    q: np.ndarray,
    p: np.ndarray,
    loss: Loss,
    sizes: tuple[int, int, int],
    terms: BatchInfo | None = None,
) -> tuple:
    """((loss, accuracy), (gradient of queries, of passages)) on a mesh of these sizes."""
    on = tiny.mesh(*sizes)
    terms = BatchInfo._make(tiny.rows(on, *(terms or alike(len(q), len(p), loss.temperature))))
    return jax.device_get(compiled([q.shape, p.shape], loss, on)(*tiny.rows(on, q, p), terms))


def distance(found: np.ndarray, wanted: np.ndarray) -> float:
    return float(np.linalg.norm(found - wanted) / np.linalg.norm(wanted))


class Problem(NamedTuple):
    """Vectors, and what is known of the loss."""

    q: np.ndarray
    p: np.ndarray
    terms: BatchInfo
    dense: tuple  # result on a mesh
    exact: tuple


@cache
def problem(
    queries: int, passages: int, temperature: float | None, sizes: tuple[int, int, int]
) -> Problem:
    """All queries of one temperature, or for None of any kind: what they lack would then win where it should not."""
    q, p = vectors(queries, passages)
    each = passages // queries
    p[
        [5 * each, 6 * each]
    ] *= -1  # queries, without in-batch negatives too, whose own passage is not the nearest
    terms = alike(queries, passages, temperature) if temperature else mixed(queries, passages)
    p[terms.passages < 0] = np.repeat(q, each, axis=0)[terms.passages < 0]
    return Problem(q, p, terms, contrast(q, p, Loss(), sizes, terms), exact.infonce(q, p, terms))


PROBLEMS = [(32, 96, 0.02), (24, 72, None)]


@pytest.mark.parametrize("sizes", MESHES, ids=str)
@pytest.mark.parametrize(("queries", "passages", "temperature"), [(32, 32, 0.02), *PROBLEMS])
def test_dense_loss_accuracy_and_gradients_equal_numpy_in_float64(
    sizes, queries, passages, temperature
):
    _, _, terms, ((loss, accuracy), found), ((wanted, share), gradients) = problem(
        queries, passages, temperature, sizes
    )
    # Scores reach 1 / temperature, the loss a few units: float32 keeps 1e-7 of either.
    assert loss == pytest.approx(wanted, rel=1e-7, abs=1e-7 / 0.02)
    assert accuracy == pytest.approx(share, abs=1e-7)
    assert share < 1
    assert distance(found[0], gradients[0]) <= 1e-5
    assert distance(found[1], gradients[1]) <= 1e-5
    assert not found[1][terms.passages < 0].any()


@pytest.mark.parametrize("sizes", MESHES, ids=str)
@pytest.mark.parametrize(("queries", "passages", "temperature"), PROBLEMS)
@pytest.mark.parametrize(("scores", "block"), STREAMED)
def test_neither_blocks_nor_the_ring_change_loss_accuracy_or_gradients(
    sizes, queries, passages, temperature, scores, block
):
    q, p, terms, dense, wanted = problem(queries, passages, temperature, sizes)
    (loss, accuracy), found = contrast(q, p, Loss(scores=scores, block=block), sizes, terms)
    assert loss == pytest.approx(dense[0][0], rel=1e-6, abs=1e-6)
    assert loss == pytest.approx(wanted[0][0], rel=1e-6, abs=1e-6)
    assert accuracy == dense[0][1]
    for number in (0, 1):  # queries, passages
        assert distance(found[number], dense[1][number]) <= 1e-5
        assert distance(found[number], wanted[1][number]) <= 1e-5
    assert not found[1][terms.passages < 0].any()


@pytest.mark.parametrize("scores", SCORES)
@pytest.mark.parametrize("sizes", [(1, 1, 1), (8, 1, 1)], ids=str)
@pytest.mark.parametrize("passages", [16, 48])
def test_loss_and_gradients_equal_those_of_sentence_transformers(scores, sizes, passages):
    q, p = vectors(16, passages, seed=1)
    (loss, _), gradients = contrast(q, p, Loss(0.05, scores, 4), sizes)
    theirs = MultipleNegativesRankingLoss(
        SentenceTransformer(modules=[torch.nn.Identity()]), scale=1 / 0.05
    )
    tensors = [torch.from_numpy(x).requires_grad_() for x in (q, p)]
    # `similarity_fct` normalises: its gradient has no part along the vector, so neither may ours.
    wanted = theirs.compute_loss_from_embeddings(
        [tensors[0], *tensors[1].reshape(16, -1, 32).unbind(1)], labels=None
    )
    wanted.backward()
    # Scores up to 20, float32.
    assert loss == pytest.approx(wanted.item(), abs=1e-5)
    for gradient, x, tensor in zip(gradients, (q, p), tensors, strict=True):
        # Softmax minus one-hot cancels where the own passage wins; scores reach 20, of which float32 keeps 2e-6.
        across = gradient - np.sum(gradient * x, axis=-1, keepdims=True) * x
        assert np.linalg.norm(across - tensor.grad.numpy()) <= 1e-4 * np.linalg.norm(
            tensor.grad.numpy()
        )


@pytest.mark.parametrize("scores", SCORES)
def test_perfect_and_uninformative_vectors_give_the_known_losses(scores):
    same = np.tile(np.eye(1, 32, dtype=np.float32), (16, 1))
    (loss, accuracy), _ = contrast(same, np.tile(same, (2, 1)), Loss(0.02, scores, 8), (1, 1, 1))
    assert loss == pytest.approx(np.log(32), abs=1e-5)  # 32 equal passages
    assert accuracy == 0  # a collapsed model ranks nothing
    apart = np.eye(16, 32, dtype=np.float32)
    (loss, accuracy), _ = contrast(apart, apart, Loss(0.02, scores, 8), (1, 1, 1))
    assert loss == pytest.approx(0, abs=1e-6)
    assert accuracy == 1


@pytest.mark.parametrize("scores", SCORES)
@pytest.mark.parametrize("sizes", MESHES, ids=str)
def test_a_passage_that_scores_no_higher_than_another_is_no_hit(scores, sizes):
    # Small whole numbers: scores are exact, and most queries have several best passages, on several devices.
    random = np.random.default_rng(4)
    q, p = (random.integers(-1, 2, (count, 3)).astype(np.float32) for count in (64, 128))
    p[::2] = np.where(random.random((64, 1)) < 0.7, 2 * q, p[::2])
    ranks = q @ p.T
    own = ranks[np.arange(64), 2 * np.arange(64)]
    assert np.mean(own == ranks.max(axis=1)) > 0.3
    (_, accuracy), _ = contrast(q, p, Loss(0.5, scores, 3), sizes)
    assert accuracy == np.mean(own > np.sort(ranks, axis=1)[:, -2])
    assert (
        0 < accuracy < np.mean(own == ranks.max(axis=1))
    )  # some only equal the best of the others


@pytest.mark.parametrize("scores", SCORES)
@pytest.mark.parametrize("temperature", [0.02, 0.001])
def test_scores_of_either_sign_do_not_overflow(scores, temperature):
    q, p = vectors(16, 32, seed=3)
    p[:16:2], p[16::2], p[1::2] = (
        q[:8],
        -q[8:],
        -q,
    )  # half of the queries score their own passage highest of all, half lowest
    (loss, accuracy), gradients = contrast(q, p, Loss(temperature, scores, 5), (8, 1, 1))
    (wanted, share), gradients64 = exact.infonce(q, p, alike(16, 32, temperature))
    assert loss == pytest.approx(wanted, rel=1e-6)
    assert accuracy == share == 0.5
    for number in (0, 1):
        # Scores reach 1 / temperature, of which float32 keeps 1e-7: an error of the exponent.
        assert distance(gradients[number], gradients64[number]) <= 1e-6 / temperature


def test_a_large_batch_gives_the_same_in_blocks_as_at_once():
    q, p = vectors(2_048, 4_096, seed=5)
    dense = contrast(q, p, Loss(), (4, 2, 1))
    for scores in ("chunked", "ring"):
        (loss, accuracy), gradients = contrast(q, p, Loss(scores=scores, block=300), (4, 2, 1))
        assert loss == pytest.approx(dense[0][0], rel=1e-6, abs=1e-6)
        assert accuracy == dense[0][1]
        assert max(map(distance, gradients, dense[1])) <= 1e-5


@cache
def large(scores: str) -> jax.stages.Compiled:
    """32,768 queries, 65,536 passages of 64 numbers on eight devices; compiled only."""
    return compiled([(32_768, 64), (65_536, 64)], Loss(scores=scores), tiny.mesh(4, 2, 1))


@pytest.mark.parametrize("scores", SCORES)
def test_blocks_keep_a_score_matrix_of_8_gb_out_of_memory(scores):
    temporary = 8 * large(scores).memory_analysis().temp_size_in_bytes
    matrix = 4 * 32_768 * 65_536
    assert temporary >= matrix if scores == "dense" else temporary <= 1e9


@pytest.mark.parametrize("scores", SCORES)
def test_only_the_ring_never_holds_all_passages_on_a_device(scores):
    text = large(scores).as_text()
    assert ("all-gather" in text) == (scores != "ring")
    assert ("f32[65536,64]" in text) == (scores != "ring")
    assert ("collective-permute" in text) == (scores == "ring")


def test_order_of_the_negatives_does_not_matter():
    q, p = vectors(16, 48, seed=2)
    other = p.reshape(16, 3, 32).copy()
    other[:, 1:] = other[::-1, :0:-1]
    other = other.reshape(p.shape)
    (loss, accuracy), _ = contrast(q, p, Loss(0.05), (1, 1, 1))
    (again, same), _ = contrast(q, other, Loss(0.05), (1, 1, 1))
    assert again == pytest.approx(loss, abs=1e-5)
    assert accuracy == same


@pytest.mark.parametrize("scores", SCORES)
def test_scores_are_not_rounded_by_fast_matrix_units(scores):
    on = tiny.mesh(1, 1, 1)
    with jax.set_mesh(on):
        run = jax.value_and_grad(
            partial(infonce, loss=Loss(scores=scores, block=5)), argnums=(0, 1), has_aux=True
        )
        terms = BatchInfo._make(tiny.rows(on, *alike(16, 16, 0.02)))
        lowered = jax.jit(run).lower(*tiny.rows(on, *vectors(16, 16)), terms).as_text()
    products = re.findall(r"dot_general.*", lowered)
    assert len(products) >= 3
    assert all("precision = [HIGHEST, HIGHEST]" in product for product in products)
