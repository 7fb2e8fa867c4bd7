"""Training state: what changes, and nothing else. Frozen base weights are a separate argument of the step."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Array, Int

from e5jax.model.model_def import Abstract, Parameters
from e5jax.train import guard
from e5jax.train.guard import GuardState


class State(NamedTuple):
    """Goes into the step and comes out of it, donated."""

    step: Int[Array, ""]  # optimiser steps taken
    parameters: Parameters  # float32
    moments: optax.OptState
    watch: GuardState


def fresh(
    parameters: Parameters, optimiser: optax.GradientTransformation, mesh: jax.sharding.Mesh
) -> State:
    """State before the first step."""
    placed = jax.tree.map(lambda leaf: leaf.sharding, abstract(parameters, optimiser, mesh))
    make = partial(_assemble, optimiser=optimiser)
    # Said, not inferred: moments that an optimiser makes by shape alone would otherwise be whole on every device.
    return jax.jit(make, out_shardings=placed)(parameters)


def abstract(
    parameters: Parameters | Abstract,
    optimiser: optax.GradientTransformation,
    mesh: jax.sharding.Mesh,
) -> State:
    """The state's shapes, dtypes and placement: moments lie where their parameters lie, counters everywhere."""

    def place(path: tuple, leaf: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
        key = path[-1].key if isinstance(path[-1], jax.tree_util.DictKey) else None
        whole = NamedSharding(
            mesh, PartitionSpec(*[None] * len(leaf.shape))
        )  # as the step returns it, or it compiles again
        sharding = parameters[key].sharding if key is not None and key in parameters else whole
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)

    shapes = {
        name: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for name, leaf in parameters.items()
    }
    return jax.tree_util.tree_map_with_path(
        place, jax.eval_shape(partial(_assemble, optimiser=optimiser), shapes)
    )


def _assemble(parameters: Parameters, optimiser: optax.GradientTransformation) -> State:
    return State(jnp.zeros((), jnp.int32), parameters, optimiser.init(parameters), guard.fresh())
