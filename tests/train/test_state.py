"""Where the training state lies before the first step."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from e5jax.train import state
from tests import tiny


def test_moments_lie_where_their_parameters_lie_however_the_optimiser_makes_them():
    of, on = tiny.made(), tiny.mesh(2, 2, 2)
    by_shape = optax.GradientTransformation(
        lambda parameters: {name: jnp.ones(value.shape) for name, value in parameters.items()},
        lambda updates, moments, _: (updates, moments),
    )
    with jax.set_mesh(on):
        trained, _ = tiny.place(of, tiny.numbers(of), on)
        fresh = state.fresh(trained, by_shape, on)
    assert int(fresh.step) == 0
    assert len({str(value.sharding) for value in trained.values()}) > 1
    for name, value in trained.items():
        assert fresh.moments[name].sharding == fresh.parameters[name].sharding == value.sharding
        assert np.array_equal(fresh.parameters[name], value)
