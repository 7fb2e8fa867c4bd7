"""From hidden states to one vector a text, in float32."""

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float, Int

from e5jax.config import Pooling


def pool(
    hidden: Float[Array, "n t d"], segments: Int[Array, "n t"], ends: Int[Array, "n s"], pooling: Pooling, shared: int = 0
) -> Float[Array, "n s d"]:
    """Unit vectors; absent texts give zero."""
    return unit(pooled(hidden, segments, ends, pooling, shared))


def pooled(
    hidden: Float[Array, "n t d"], segments: Int[Array, "n t"], ends: Int[Array, "n s"], pooling: Pooling, shared: int = 0
) -> Float[Array, "n s d"]:
    """`last`: the state at each text's last token (EOS). `mean`: the average over its tokens. Absent texts give zero.

    `weighted_mean`: the same with the weights 1, 2, … from a text's first token to its last (SGPT, arXiv 2202.08904).
    The first `shared` tokens of a row belong to every text.
    """
    hidden = hidden.astype(jnp.float32)
    if pooling == "last":
        place = jnp.arange(hidden.shape[1])[None, None] == ends[:, :, None]
        share = place.astype(jnp.float32)
    else:
        place = segments[:, None, :] == jnp.arange(1, ends.shape[1] + 1)[None, :, None]
        if shared:
            place |= (ends >= 0)[:, :, None] & (jnp.arange(hidden.shape[1]) < shared)[None, None]
        weight = place * jnp.cumsum(place, axis=-1) if pooling == "weighted_mean" else place
        # The 1 is for absent texts: 0 / 0 is whatever the compiler makes of it.
        share = weight / jnp.maximum(jnp.sum(weight, axis=-1, keepdims=True), 1)
    return checkpoint_name(jnp.einsum("nst,ntd->nsd", share, hidden), "pooled")


def unit(vectors: Float[Array, "*batch d"]) -> Float[Array, "*batch d"]:
    """Divides by the Euclidean length; the zero vector stays zero and its gradient finite."""
    squared = jnp.sum(jnp.square(vectors), axis=-1, keepdims=True)
    return vectors * jax.lax.rsqrt(jnp.maximum(squared, 1e-24))
