"""From hidden states to one vector a text, in float32."""

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Bool, Float, Int


def pool(
    hidden: Float[Array, "n t d"],
    segments: Int[Array, "n t"],
    ends: Int[Array, "n s"],
    pooling: str,
    shared: int = 0,
) -> Float[Array, "n s d"]:
    """Unit vectors; absent texts give zero."""
    return unit(pooled(hidden, segments, ends, pooling, shared))


def pooled(
    hidden: Float[Array, "n t d"],
    segments: Int[Array, "n t"],
    ends: Int[Array, "n s"],
    pooling: str,
    shared: int = 0,
    skip: int | Int[Array, ""] = 0,
) -> Float[Array, "n s e"]:
    """Pools each text by a mode, or by several joined with "+", whose results are concatenated. Absent texts give zero.

    `last`: the state at each text's last token (EOS). `first`: at its first. `mean`: the average over its tokens.
    `mean_sqrt`: their sum, divided by the square root of their number. `max`: the greatest value of each dimension.
    `weighted_mean`: the average with the weights 1, 2, … from a text's first token to its last (SGPT, arXiv 2202.08904).
    The first `shared` tokens of a row belong to every text. The first `skip` tokens of each text, its prompt, are left out.
    """
    hidden = hidden.astype(jnp.float32)
    if pooling == "last" and isinstance(skip, int) and not skip:
        place = jnp.arange(hidden.shape[1])[None, None] == ends[:, :, None]
        return _averaged(place.astype(jnp.float32), hidden)
    own = segments[:, None, :] == jnp.arange(1, ends.shape[1] + 1)[None, :, None]
    if shared:
        own |= (ends >= 0)[:, :, None] & (jnp.arange(hidden.shape[1]) < shared)[None, None]
    number = jnp.cumsum(own, axis=-1)  # of a token in its text, from 1
    kept = own if isinstance(skip, int) and not skip else own & (number > skip)
    parts = [_by_mode(mode, hidden, own, kept, number, ends, skip) for mode in pooling.split("+")]
    return parts[0] if len(parts) == 1 else jnp.concatenate(parts, axis=-1)


def _by_mode(
    mode: str,
    hidden: Float[Array, "n t d"],
    own: Bool[Array, "n s t"],
    kept: Bool[Array, "n s t"],
    number: Int[Array, "n s t"],
    ends: Int[Array, "n s"],
    skip: int | Int[Array, ""],
) -> Float[Array, "n s d"]:
    """As sentence-transformers 6 does it; where nothing is kept of a text, sums are zero and `first` is its first token."""
    if mode == "max":
        return _greatest(hidden, kept, ends >= 0)
    if mode == "last":
        share = (kept & (jnp.arange(hidden.shape[1])[None, None] == ends[:, :, None])).astype(
            jnp.float32
        )
    elif mode == "first":
        length = jnp.sum(own, axis=-1, keepdims=True)
        share = (own & (number == jnp.where(length > skip, skip, 0) + 1)).astype(jnp.float32)
    else:
        weight = kept * number if mode == "weighted_mean" else kept
        # The 1 is for absent texts: 0 / 0 is whatever the compiler makes of it.
        total = jnp.maximum(jnp.sum(weight, axis=-1, keepdims=True), 1)
        share = weight / (jnp.sqrt(total.astype(jnp.float32)) if mode == "mean_sqrt" else total)
    return _averaged(share, hidden)


def _averaged(share: Float[Array, "n s t"], hidden: Float[Array, "n t d"]) -> Float[Array, "n s d"]:
    return checkpoint_name(jnp.einsum("nst,ntd->nsd", share, hidden), "pooled")


def _greatest(
    hidden: Float[Array, "n t d"], kept: Bool[Array, "n s t"], there: Bool[Array, "n s"]
) -> Float[Array, "n s d"]:
    """One slot after the other: all at once would hold the states as often as a row has slots."""

    def of_slot(tokens: Bool[Array, "n t"]) -> Float[Array, "n d"]:
        return jnp.max(jnp.where(tokens[:, :, None], hidden, -jnp.inf), axis=1)

    greatest = jnp.moveaxis(jax.lax.map(of_slot, jnp.moveaxis(kept, 1, 0)), 0, 1)
    return jnp.where(there[:, :, None], greatest, 0)


def unit(vectors: Float[Array, "*batch d"]) -> Float[Array, "*batch d"]:
    """Divides by the Euclidean length; the zero vector stays zero and its gradient finite."""
    squared = jnp.sum(jnp.square(vectors), axis=-1, keepdims=True)
    return vectors * jax.lax.rsqrt(jnp.maximum(squared, 1e-24))
