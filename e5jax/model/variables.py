"""Model variables: each carries its logical axes, and its type says whether it belongs to the base or to an adapter."""

import jax
from flax import nnx

Axes = tuple[str | None, ...]


class Weight(nnx.Variable):
    """A parameter of the base decoder: frozen under LoRA, trained without it."""


class Quantised(Weight):
    """Integers of a frozen kernel, or their scales: its dtype is its own, whatever that of the run."""


class Adapter(nnx.Variable):
    """What stands beside the base, and is trained: a LoRA factor, or the rows of new tokens."""


def weight(value: jax.Array, axes: Axes) -> Weight:
    """A base parameter with the logical axes of its dimensions."""
    return Weight(value, axes=axes)


def quantised(value: jax.Array, axes: Axes) -> Quantised:
    """Integers or scales with the logical axes of their dimensions."""
    return Quantised(value, axes=axes)


def adapter(value: jax.Array, axes: Axes) -> Adapter:
    """A parameter beside the base with the logical axes of its dimensions."""
    return Adapter(value, axes=axes)
