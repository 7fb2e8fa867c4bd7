"""A temperature that is learned."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from e5jax.config import Loss
from e5jax.train.loss import contrast
from e5jax.train.optim import _decayed
from e5jax.train.temperature import NAME, learned
from tests import tiny
from tests.train.test_loss import alike, vectors

LOSS = Loss(0.05, bounds=(0.01, 0.5))


def test_it_begins_where_it_was_told_and_stays_between_its_bounds():
    given = jnp.array([0.02, 0.05, 0.4])
    np.testing.assert_allclose(learned(given, {NAME: jnp.zeros(())}, LOSS), given, rtol=1e-5)
    assert learned(given, {}, Loss()) is given
    for moved, wanted in [(-30.0, 0.01), (30.0, 0.5)]:
        np.testing.assert_allclose(
            learned(given, {NAME: jnp.full((), moved)}, LOSS), wanted, rtol=1e-5
        )


def test_its_gradient_is_the_slope_of_the_loss():
    on = tiny.mesh(1, 1, 1)
    q, p = vectors(16, 16)
    with jax.set_mesh(on):
        terms = type(alike(16, 16, 0.05))._make(tiny.rows(on, *alike(16, 16, 0.05)))
        queries, passages = tiny.rows(on, q, p)

        @jax.jit
        def loss(scale: jax.Array) -> jax.Array:
            warmth = learned(terms.temperatures, {NAME: scale}, LOSS)
            return contrast(queries, passages, terms._replace(temperatures=warmth), LOSS)[0]

        low, high, slope = (
            loss(jnp.float32(-0.01)),
            loss(jnp.float32(0.01)),
            jax.grad(loss)(jnp.float32(0.0)),
        )
    assert slope != 0
    assert float(slope) == pytest.approx(float(high - low) / 0.02, rel=1e-2)


def test_it_is_not_decayed():
    assert not _decayed({NAME: jnp.zeros(())})[NAME]
