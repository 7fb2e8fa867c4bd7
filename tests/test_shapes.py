"""The shapes that annotations state are checked in the tests."""

import jax.numpy as jnp
import pytest
from jaxtyping import TypeCheckError

from e5jax.model.pooling import unit


def test_an_array_of_another_shape_is_an_error():
    unit(jnp.ones((2, 3)))
    with pytest.raises(TypeCheckError):
        unit(jnp.ones((2, 3), jnp.int32))
