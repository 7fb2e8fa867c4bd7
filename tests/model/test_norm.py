"""RMSNorm's gradient against the Jacobian of the formula, in float64 by NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from e5jax.model.norm import normalised

EPSILON = 1e-5


def gradient(x: np.ndarray, g: np.ndarray) -> np.ndarray:
    """By the whole Jacobian of each token, `(I - x x^T / (d r²)) / r` with `r² = mean(x²) + epsilon`, in float64."""
    found = np.zeros(x.shape)
    for at in np.ndindex(x.shape[:-1]):
        one, rms = x[at], np.sqrt(np.mean(x[at] ** 2) + EPSILON)
        found[at] = (np.eye(one.size) - np.outer(one, one) / (one.size * rms**2)) / rms @ g[at]
    return found


@pytest.mark.parametrize(("dtype", "bound"), [("float32", 1e-6), ("bfloat16", 1e-2)])
@pytest.mark.parametrize("rows", [1, 3])
def test_the_gradient_is_that_of_the_formula(rows, dtype, bound):
    x, g = (
        np.asarray(part, dtype)
        for part in 3 * np.random.default_rng(rows).standard_normal((2, rows, 7, 48))
    )
    x[0, 0] *= 1e-3  # where epsilon counts
    found = jax.jit(lambda x, g: jax.vjp(lambda x: normalised(x, EPSILON), x)[1](g)[0])(
        jnp.asarray(x), jnp.asarray(g)
    )
    assert found.dtype == dtype
    wanted = gradient(x.astype(np.float64), g.astype(np.float64))
    difference = np.linalg.norm(np.asarray(found, np.float64) - wanted, axis=-1) / np.linalg.norm(
        wanted, axis=-1
    )
    assert difference.max() <= bound


def test_a_token_of_zeros_has_a_finite_gradient():
    zeros = jnp.zeros((1, 1, 8))
    found = jax.grad(lambda x: normalised(x, EPSILON).sum())(zeros)
    np.testing.assert_allclose(found, np.full(zeros.shape, EPSILON**-0.5), rtol=1e-6)
