"""Rounding in training: what the loss sees is what is stored, what is trained is not rounded, on any mesh."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from e5jax.inference.vector_quantization import Store
from e5jax.mesh import BATCH
from e5jax.train.build import put_batch
from e5jax.train.rounding import through
from e5jax.train.step import encode, loss_and_accuracy
from tests import tiny
from tests.vectors import unit

SPEC = tiny.SPEC._replace(hidden=32, ff=64, head_size=8, layers=2)


@pytest.mark.parametrize("precision", ["float32", "int8", "binary"])
@pytest.mark.parametrize("sizes", [(1, 1, 1), (4, 2, 1)], ids=str)
def test_the_loss_sees_what_is_stored_and_the_gradient_what_is_not(precision, sizes):
    vectors = unit(16, 24, 0)
    vectors[[3, 9]] = 0  # absent
    there = np.any(vectors != 0, axis=1)
    slope = np.random.default_rng(1).standard_normal(vectors.shape).astype(np.float32)
    on = tiny.mesh(*sizes)
    with jax.set_mesh(on):
        rows = [
            jax.device_put(x, NamedSharding(on, PartitionSpec(BATCH, None)))
            for x in (vectors, slope)
        ]
        run = jax.jit(
            jax.value_and_grad(
                lambda x, slope: (jnp.sum((y := through(x, precision)) * slope), y), has_aux=True
            )
        )
        (_, found), gradient = run(*rows)
    wanted = Store.of(vectors[there], precision).rows(np.arange(there.sum()))
    away = np.abs(np.asarray(found)[there] - wanted / np.linalg.norm(wanted, axis=1, keepdims=True))
    # The largest numbers are where one step ends: rounding puts a few of them into its neighbour, about 0.004 away.
    assert away.max() <= (0.006 if precision == "int8" else 2e-6)
    assert away.mean() <= (2e-4 if precision == "int8" else 1e-6)
    assert not np.asarray(found)[~there].any()
    np.testing.assert_array_equal(gradient, slope)


def test_the_loss_of_a_step_that_rounds_is_that_of_signs():
    of, on = tiny.made(SPEC), tiny.mesh(1, 1, 1)
    trained, frozen = tiny.place(of, tiny.numbers(of), on)
    objective = tiny.objective(of)._replace(rounding="binary")

    def both(trained, batch):
        return loss_and_accuracy(objective, trained, frozen, batch, None)[0], encode(
            objective, trained, frozen, batch, None
        )

    with jax.set_mesh(on):
        loss, sides = jax.device_get(
            jax.jit(both)(trained, put_batch(tiny.batch(8, 1, 1, width=12), on))
        )

    def infonce(queries: np.ndarray, passages: np.ndarray) -> float:
        scores = (queries @ passages.T).astype(np.float64) / 0.05
        return float(
            np.mean(np.log(np.exp(scores).sum(axis=1)) - scores[np.arange(8), 2 * np.arange(8)])
        )

    wanted = infonce(*(np.where(side > 0, 1, -1) / 32**0.5 for side in sides))
    assert loss == pytest.approx(wanted, rel=1e-5)
    assert abs(infonce(*sides) - wanted) > 1e-3
