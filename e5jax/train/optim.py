"""AdamW with linear warm-up and decay (arXiv 1711.05101), gradients clipped by their global norm.

`update` takes one thing more than optax's own, `made`: where it is false all moments stay as they are, bit for bit, and what it
returns is not to be used. Chosen in here, and not from what optax returns, so that the direction follows from the moments that
are kept: they are written in the place of the old ones, which would be copied before each step otherwise.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax

from e5jax.config import Optim


def schedule(config: Optim) -> optax.Schedule:
    """Learning rate of step 0, 1, …: rises to the peak in `warmup_steps`, falls to zero at `steps`, as in transformers."""
    up = optax.linear_schedule(0.0, config.learning_rate, config.warmup_steps)
    down = optax.linear_schedule(config.learning_rate, 0.0, config.steps - config.warmup_steps)
    return optax.join_schedules([up, down], [config.warmup_steps]) if config.warmup_steps else down


def optimiser(config: Optim) -> optax.GradientTransformationExtraArgs:
    """Moments are as wide as the parameters: float32. The numbers, and their tree, are those of `optax.adamw`."""
    rate = optax.scale_by_learning_rate(schedule(config))
    adamw = optax.chain(
        _adam(config), optax.add_decayed_weights(config.weight_decay, _decayed), _chosen(rate)
    )
    return optax.chain(optax.clip_by_global_norm(config.clip_norm), adamw)


def _adam(config: Optim) -> optax.GradientTransformationExtraArgs:
    """`optax.scale_by_adam`, its direction taken from the moments that are chosen."""
    adam = _chosen(optax.scale_by_adam(config.beta1, config.beta2, config.epsilon))

    def update(
        updates: Any, state: Any, params: Any = None, *, made: Any = True, **_: Any
    ) -> tuple[Any, Any]:
        chosen = adam.update(updates, state, params, made=made)[1]
        assert isinstance(chosen, optax.ScaleByAdamState)
        mean = optax.tree.bias_correction(chosen.mu, config.beta1, chosen.count)
        square = optax.tree.bias_correction(chosen.nu, config.beta2, chosen.count)
        return jax.tree.map(lambda m, v: m / (jnp.sqrt(v) + config.epsilon), mean, square), chosen

    return optax.GradientTransformationExtraArgs(adam.init, update)


def _chosen(inner: optax.GradientTransformation) -> optax.GradientTransformationExtraArgs:
    """Its state stays where the update is not made."""

    def update(
        updates: Any, state: Any, params: Any = None, *, made: Any = True, **_: Any
    ) -> tuple[Any, Any]:
        updates, new = inner.update(updates, state, params)
        return updates, jax.tree.map(partial(jnp.where, made), new, state)

    return optax.GradientTransformationExtraArgs(inner.init, update)


def _decayed(parameters: Mapping[str, jax.Array]) -> dict[str, bool]:
    """Norm scales and biases are not decayed, as in transformers' Trainer."""
    return {name: not name.endswith(("/scale", "/bias")) for name in parameters}
