"""Model FLOPs of a step: what the mathematics needs, whatever is recomputed."""

import math

from e5jax.model.model_def import ModelDef


def model_flops(blueprint: ModelDef, tokens: float, squared_lengths: float) -> float:
    """Tokens × (4 × frozen matrix parameters + 6 × trained) + causal attention 6 · layers · heads · head size · Σ length².

    A frozen matrix costs a forward product and the gradient of its input; a trained parameter also its own gradient.
    The embedding table is looked up, not multiplied, and norm scales do not count. Below the lowest layers that are trained there
    is no backward pass, which is two thirds of attention; and attention that sees both ways costs twice as much.
    """
    leaves, spec = blueprint.leaves, blueprint.spec
    kernels = {
        name: math.prod(leaf.shape)
        for name, leaf in leaves.items()
        if name.endswith(("/kernel", "/lora_a", "/lora_b"))
    }
    reached = (
        spec.layers
        if any(not name.startswith(("top/", "norm/")) for name in blueprint.trained)
        else spec.top
    )
    trained = sum(kernels.get(name, 0) for name in blueprint.trained)
    frozen = {name: kernels.get(name, 0) for name in blueprint.frozen}
    below = (
        sum(size for name, size in frozen.items() if name.startswith("layers/"))
        if reached < spec.layers
        else 0
    )
    attention = (
        (2 if spec.causal else 4)
        * (2 * reached + spec.layers)
        * spec.heads
        * spec.head_size
        * squared_lengths
    )
    return tokens * (4 * sum(frozen.values()) - 2 * below + 6 * trained) + attention


def parameters(blueprint: ModelDef, names: list[str]) -> int:
    """Number of scalars in these parameters."""
    leaves = blueprint.leaves
    return sum(math.prod(leaves[name].shape) for name in names)
