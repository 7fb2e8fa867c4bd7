"""AdamW with linear warm-up and decay (arXiv 1711.05101), gradients clipped by their global norm."""

from collections.abc import Mapping

import jax
import optax

from e5jax.config import Optim


def schedule(config: Optim) -> optax.Schedule:
    """Learning rate of step 0, 1, …: rises to the peak in `warmup_steps`, falls to zero at `steps`, as in transformers."""
    up = optax.linear_schedule(0.0, config.learning_rate, config.warmup_steps)
    down = optax.linear_schedule(config.learning_rate, 0.0, config.steps - config.warmup_steps)
    return optax.join_schedules([up, down], [config.warmup_steps]) if config.warmup_steps else down


def optimiser(config: Optim) -> optax.GradientTransformation:
    """Moments are as wide as the parameters: float32."""
    return optax.chain(
        optax.clip_by_global_norm(config.clip_norm),
        optax.adamw(
            schedule(config),
            b1=config.beta1,
            b2=config.beta2,
            eps=config.epsilon,
            weight_decay=config.weight_decay,
            mask=_decayed,
        ),
    )


def _decayed(parameters: Mapping[str, jax.Array]) -> dict[str, bool]:
    """Norm scales and biases are not decayed, as in transformers' Trainer."""
    return {name: not name.endswith(("/scale", "/bias")) for name in parameters}
