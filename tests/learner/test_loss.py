"""InfoNCE against NumPy in float64 and against sentence-transformers."""

import jax
import numpy as np
import pytest
import torch
from jax.sharding import NamedSharding, PartitionSpec
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

from e5jax.learner.loss import infonce
from e5jax.mesh import BATCH
from tests import tiny

MESHES = [(1, 1, 1), (8, 1, 1), (4, 2, 1), (2, 2, 2)]


def vectors(queries: int, negatives: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors; positives lie near their queries."""
    random = np.random.default_rng(seed)
    q = random.standard_normal((queries, 32))
    p = random.standard_normal((queries * (1 + negatives), 32))
    p[:queries] += q
    return tuple((x / np.linalg.norm(x, axis=-1, keepdims=True)).astype(np.float32) for x in (q, p))


def contrast(q: np.ndarray, p: np.ndarray, temperature: float, sizes: tuple[int, int, int]) -> tuple:
    """((loss, accuracy), (gradient of queries, of passages)) on a mesh of these sizes."""
    on = tiny.mesh(*sizes)
    with jax.set_mesh(on):
        q = jax.device_put(q, NamedSharding(on, PartitionSpec(BATCH, None)))
        p = jax.device_put(p, NamedSharding(on, PartitionSpec(None, None)))
        run = jax.jit(jax.value_and_grad(lambda q, p: infonce(q, p, temperature), argnums=(0, 1), has_aux=True))
        return jax.device_get(run(q, p))


@pytest.mark.parametrize("sizes", MESHES)
@pytest.mark.parametrize(("negatives", "temperature"), [(0, 0.02), (1, 0.02), (3, 1.0)])
def test_loss_and_accuracy_equal_numpy_in_float64(sizes, negatives, temperature):
    q, p = vectors(16, negatives)
    p[3] = -p[3]  # one query whose own passage is not the nearest
    (loss, accuracy), _ = contrast(q, p, temperature, sizes)
    scores = q.astype(np.float64) @ p.astype(np.float64).T / temperature
    top = scores.max(axis=1, keepdims=True)
    wanted = np.mean(np.log(np.exp(scores - top).sum(axis=1)) + top[:, 0] - np.diag(scores))
    # Scores reach 1 / temperature = 50, of which float32 keeps 4e-6.
    assert loss == pytest.approx(wanted, abs=2e-5)
    assert accuracy == np.mean(scores.argmax(axis=1) == np.arange(16)) < 1


@pytest.mark.parametrize("sizes", [(1, 1, 1), (8, 1, 1)])
@pytest.mark.parametrize("negatives", [0, 2])
def test_loss_and_gradients_equal_those_of_sentence_transformers(sizes, negatives):
    q, p = vectors(16, negatives, seed=1)
    (loss, _), gradients = contrast(q, p, 0.05, sizes)
    theirs = MultipleNegativesRankingLoss(SentenceTransformer(modules=[torch.nn.Identity()]), scale=1 / 0.05)
    tensors = [torch.from_numpy(x).requires_grad_() for x in (q, p)]
    # `similarity_fct` normalises: its gradient has no part along the vector, so neither may ours.
    wanted = theirs.compute_loss_from_embeddings([tensors[0], *tensors[1].split(16)], labels=None)
    wanted.backward()
    # Scores up to 20, float32.
    assert loss == pytest.approx(wanted.item(), abs=1e-5)
    for gradient, x, tensor in zip(gradients, (q, p), tensors, strict=True):
        # Softmax minus one-hot cancels where the own passage wins; scores reach 20, of which float32 keeps 2e-6.
        across = gradient - np.sum(gradient * x, axis=-1, keepdims=True) * x
        assert np.linalg.norm(across - tensor.grad.numpy()) <= 1e-4 * np.linalg.norm(tensor.grad.numpy())


def test_perfect_and_uninformative_vectors_give_the_known_losses():
    same = np.tile(np.eye(1, 32, dtype=np.float32), (16, 1))
    (loss, accuracy), _ = contrast(same, np.tile(same, (2, 1)), 0.02, (1, 1, 1))
    assert loss == pytest.approx(np.log(32), abs=1e-5)  # 32 equal passages
    assert accuracy == 1 / 16  # a collapsed model ranks nothing: of equal scores only the first counts
    apart = np.eye(16, 32, dtype=np.float32)
    (loss, accuracy), _ = contrast(apart, apart, 0.02, (1, 1, 1))
    assert loss == pytest.approx(0, abs=1e-6)
    assert accuracy == 1


def test_order_of_the_negatives_does_not_matter():
    q, p = vectors(16, 2, seed=2)
    other = np.concatenate([p[:16], p[16:][::-1]])
    (loss, accuracy), _ = contrast(q, p, 0.05, (1, 1, 1))
    (again, same), _ = contrast(q, other, 0.05, (1, 1, 1))
    assert again == pytest.approx(loss, abs=1e-5)
    assert accuracy == same


def test_scores_are_not_rounded_by_fast_matrix_units():
    with jax.set_mesh(tiny.mesh(1, 1, 1)):
        lowered = jax.jit(infonce, static_argnums=2).lower(*vectors(16, 0), 0.02).as_text()
    assert "precision = [HIGHEST, HIGHEST]" in lowered
    assert "precision = [DEFAULT" not in lowered
