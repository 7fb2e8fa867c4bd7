"""Model FLOPs of a step: what the mathematics needs, whatever is recomputed."""

import math

from e5jax.model.blueprint import Blueprint


def model_flops(blueprint: Blueprint, tokens: float, squared_lengths: float) -> float:
    """Tokens × (4 × frozen matrix parameters + 6 × trained) + causal attention 6 · layers · heads · head size · Σ length².

    Attention costs twice that where a token also sees what is after it.

    A frozen matrix costs a forward product and the gradient of its input; a trained parameter also its own gradient.
    The embedding table is looked up, not multiplied, and norm scales do not count.
    """
    leaves, spec = blueprint.leaves, blueprint.spec
    frozen = sum(math.prod(leaves[name].shape) for name in blueprint.frozen if name.endswith("/kernel"))
    trained = sum(math.prod(leaves[name].shape) for name in blueprint.trained if name.endswith(("/kernel", "/lora_a", "/lora_b")))
    attention = (6 if spec.causal else 12) * spec.layers * spec.heads * spec.head_size * squared_lengths
    return tokens * (4 * frozen + 6 * trained) + attention


def parameters(blueprint: Blueprint, names: list[str]) -> int:
    """Number of scalars in these parameters."""
    leaves = blueprint.leaves
    return sum(math.prod(leaves[name].shape) for name in names)
