"""A temperature that is learned: one trained number that moves those of all queries, between bounds that it never reaches."""

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Array, Float

from e5jax.config import Loss
from e5jax.model.model_def import Abstract, Parameters

NAME = "loss/temperature/scale"  # a scale, and like those of norms not decayed


def abstract(loss: Loss, mesh: jax.sharding.Mesh) -> Abstract:
    """The parameter's shape and placement, where there is one."""
    return (
        {NAME: jax.ShapeDtypeStruct((), jnp.float32, sharding=NamedSharding(mesh, PartitionSpec()))}
        if loss.bounds
        else {}
    )


def fresh(loss: Loss, mesh: jax.sharding.Mesh) -> Parameters:
    """Zero: every query has the temperature that it was given."""
    return {
        name: jax.device_put(jnp.zeros(leaf.shape, leaf.dtype), leaf.sharding)
        for name, leaf in abstract(loss, mesh).items()
    }


def learned(given: Float[Array, " q"], trained: Parameters, loss: Loss) -> Float[Array, " q"]:
    """Temperatures of a step. In log temperature, the place between the bounds goes up and down a sigmoid."""
    if not loss.bounds:
        return given
    low, high = (jnp.log(bound) for bound in loss.bounds)
    place = (jnp.log(given) - low) / (high - low)
    return jnp.exp(
        low + (high - low) * jax.nn.sigmoid(jnp.log(place / (1 - place)) + trained[NAME])
    )
