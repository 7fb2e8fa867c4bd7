"""Which updates are made: none whose loss or gradient is not finite, and on demand none that is far above what is usual.

What is decided follows from the state and the batch alone, so a run that is resumed decides as one that never stopped.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
from jaxtyping import Array, Bool, Float, Int

from e5jax.config import Guard

LEAST = 0.01  # of the mean, that a standard deviation counts for at least: a curve as flat as a table has no spikes


class GuardState(NamedTuple):
    """What the guard remembers, a part of the training state. The statistics are of loss and gradient norm, of steps that count."""

    skipped: Int[Array, ""]  # steps in all
    in_a_row: Int[Array, ""]  # up to now
    counted: Int[Array, ""]  # steps in the statistics
    mean: Float[Array, "2"]
    variance: Float[Array, "2"]


def fresh() -> GuardState:
    """Before the first step."""
    none, zeros = jnp.zeros((), jnp.int32), jnp.zeros(2)
    return GuardState(none, none, none, zeros, zeros)


def should_apply(
    guard: Guard, watch: GuardState, loss: Float[Array, ""], norm: Float[Array, ""]
) -> tuple[Bool[Array, ""], Bool[Array, ""], GuardState]:
    """(update is made, loss and gradient are finite, what is remembered then): the same on all devices."""
    found = jnp.stack([loss, norm])
    usual = jnp.maximum(jnp.sqrt(watch.variance), LEAST * watch.mean)
    high = jnp.any(found > watch.mean + (guard.spike or jnp.inf) * usual) & (
        watch.counted >= guard.window
    )
    # One device may have computed what no other has. What it found is known to all of them: the others must not go on without it.
    finite, calm = _everywhere(jnp.stack([jnp.all(jnp.isfinite(found)), ~high]))
    made = finite & calm
    counted, none = watch.counted + made, jnp.zeros((), jnp.int32)
    share = made / jnp.minimum(
        counted + ~made, guard.window
    )  # the plain mean of the first steps, a running one from then on
    away = jnp.where(made, found - watch.mean, 0)
    return (
        made,
        finite,
        GuardState(
            watch.skipped + ~made,
            jnp.where(made, none, watch.in_a_row + 1),
            counted,
            watch.mean + share * away,
            (1 - share) * (watch.variance + share * jnp.square(away)),
        ),
    )


def _everywhere(flags: Bool[Array, " n"]) -> Bool[Array, " n"]:
    """True where it is on every device. The copies of one value are compared: a mesh takes it for granted that they are equal."""
    axes = jax.typeof(flags).sharding.mesh.axis_names

    def least(own: Array) -> Array:
        return jax.lax.pmin(own.astype(jnp.int32), axes)

    none = PartitionSpec(None)
    return jax.shard_map(least, in_specs=none, out_specs=none, check_vma=False)(flags) > 0
