"""Vectors rounded as they will be stored, while they are trained: the loss sees integers or bits, the gradient does not.

A rounded number has slope 0 almost everywhere. The gradient is handed through as if nothing had been rounded (straight-through
estimator, arXiv 1308.3432).
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from e5jax.config import Rounding
from e5jax.inference.vector_quantization import STEPS
from e5jax.model.pooling import unit


def through(vectors: Float[Array, "n d"], precision: Rounding) -> Float[Array, "n d"]:
    """Unit vectors as `precision` restores them, at length 1 again; the gradient of each number is that of its rounded one.

    The ranges of int8 are those of the batch. Vectors of absent texts, zero, stay zero.
    """
    if precision == "float32":
        return vectors
    exact = jax.lax.stop_gradient(vectors)
    there = jnp.any(exact != 0, axis=1, keepdims=True)
    rounded = unit(_signs(exact) if precision == "binary" else _levels(exact, there))
    return jnp.where(there, rounded, 0) + (vectors - exact)


def _signs(vectors: Float[Array, "n d"]) -> Float[Array, "n d"]:
    return jnp.where(vectors > 0, 1.0, -1.0)


def _levels(vectors: Float[Array, "n d"], there: Array) -> Float[Array, "n d"]:
    """The middle of the step that each number is in, of 255 from the least to the greatest of its dimension."""
    least = jnp.min(jnp.where(there, vectors, jnp.inf), axis=0, keepdims=True)
    greatest = jnp.max(jnp.where(there, vectors, -jnp.inf), axis=0, keepdims=True)
    step = (greatest - least) / STEPS
    level = jnp.clip(jnp.floor((vectors - least) / jnp.where(step > 0, step, 1)), 0, STEPS)
    return jnp.minimum(least + (level + 0.5) * step, greatest)
