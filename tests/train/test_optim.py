"""Learning rate, clipping and weight decay against transformers and torch."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch
import transformers

from e5jax.config import Optim
from e5jax.train.optim import _decayed, optimiser, schedule
from tests import tiny


@pytest.mark.parametrize(("warmup", "steps"), [(0, 10), (1, 10), (4, 20), (100, 879), (10, 10)])
def test_learning_rates_equal_those_of_transformers(warmup, steps):
    parameter = torch.nn.Parameter(torch.zeros(1))
    torch_optimiser = torch.optim.SGD([parameter], lr=3e-4)
    theirs = transformers.get_linear_schedule_with_warmup(torch_optimiser, warmup, steps)
    ours = schedule(Optim(learning_rate=3e-4, warmup_steps=warmup, steps=steps))
    for step in range(steps):
        # float32 against float64.
        assert float(ours(step)) == pytest.approx(theirs.get_last_lr()[0], rel=1e-5, abs=1e-10), (
            step
        )
        torch_optimiser.step()
        theirs.step()


def gradients(seed: int) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    return {
        "a/kernel": random.standard_normal((5, 7)),
        "a/scale": random.standard_normal(7),
        "embedding": random.random((3, 2)),
    }


def as_jax(tree: dict[str, np.ndarray]) -> dict[str, jax.Array]:
    return {name: jnp.asarray(value, jnp.float32) for name, value in tree.items()}


@pytest.mark.parametrize("clip", [0.5, 1.0, 1e3])
def test_clipping_equals_that_of_torch(clip):
    tree = gradients(0)
    # With beta1 = 0 the first moment is the clipped gradient itself.
    update = optimiser(Optim(clip_norm=clip, beta1=0.0))
    _, state = update.update(as_jax(tree), update.init(as_jax(tree)), as_jax(tree))
    tensors = [torch.nn.Parameter(torch.zeros(value.shape)) for value in tree.values()]
    for tensor, value in zip(tensors, tree.values(), strict=True):
        tensor.grad = torch.from_numpy(value).float()
    torch.nn.utils.clip_grad_norm_(tensors, clip)
    moments = [
        leaf.mu
        for leaf in jax.tree.leaves(state, is_leaf=lambda x: hasattr(x, "mu"))
        if hasattr(leaf, "mu")
    ]
    assert len(moments) == 1
    for tensor, name in zip(tensors, tree, strict=True):
        # torch adds 1e-6 to the norm it divides by.
        assert np.allclose(moments[0][name], tensor.grad, rtol=1e-5)


def test_ten_updates_equal_those_of_torchs_adamw():
    config = Optim(
        learning_rate=1e-2,
        warmup_steps=3,
        steps=10,
        weight_decay=0.3,
        clip_norm=2.0,
        beta1=0.8,
        beta2=0.95,
        epsilon=1e-6,
    )
    start = gradients(1)
    update = optimiser(config)
    parameters = as_jax(start)
    state = update.init(parameters)
    tensors = {
        name: torch.nn.Parameter(torch.from_numpy(value).float()) for name, value in start.items()
    }
    scales = {name for name in tensors if name.endswith("scale")}
    groups = [
        {"params": [tensors[n] for n in tensors if n not in scales], "weight_decay": 0.3},
        {"params": [tensors[n] for n in scales], "weight_decay": 0.0},
    ]
    theirs = torch.optim.AdamW(groups, lr=1e-2, betas=(0.8, 0.95), eps=1e-6)
    rate = transformers.get_linear_schedule_with_warmup(theirs, 3, 10)
    for step in range(10):
        gradient = gradients(step + 2)
        updates, state = update.update(as_jax(gradient), state, parameters)
        parameters = {name: parameters[name] + updates[name] for name in parameters}
        for name, tensor in tensors.items():
            tensor.grad = torch.from_numpy(gradient[name]).float()
        torch.nn.utils.clip_grad_norm_(tensors.values(), 2.0)
        theirs.step()
        rate.step()
    for name, tensor in tensors.items():
        # Ten float32 updates of size 1e-2.
        assert np.allclose(parameters[name], tensor.detach(), atol=1e-5), name


def moved(update: optax.GradientTransformation, number: int, **extra: jax.Array) -> list:
    """Updates and moments of a step with this `extra`, and the moments before it, which `number` steps have made."""
    parameters = as_jax(gradients(0))
    state = update.init(parameters)
    step = jax.jit(update.update)
    for seed in range(number):
        _, state = step(
            as_jax(gradients(seed)), state, parameters, **{name: jnp.array(True) for name in extra}
        )
    return [*step(as_jax(gradients(number)), state, parameters, **extra), state]


def test_updates_and_their_moments_are_those_of_optax_bit_for_bit():
    config = Optim(learning_rate=1e-2, warmup_steps=3, steps=10, weight_decay=0.3, clip_norm=2.0)
    adamw = optax.adamw(
        schedule(config),
        config.beta1,
        config.beta2,
        config.epsilon,
        weight_decay=0.3,
        mask=_decayed,
    )
    theirs = moved(optax.chain(optax.clip_by_global_norm(2.0), adamw), 3)
    ours = moved(optimiser(config), 3, made=jnp.array(True))
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)


@pytest.mark.parametrize("number", [0, 3])
def test_an_update_that_is_not_made_leaves_all_moments(number):
    _, after, before = moved(
        optimiser(Optim(warmup_steps=1, steps=10)), number, made=jnp.array(False)
    )
    jax.tree.map(np.testing.assert_array_equal, after, before)


def test_only_norm_scales_and_biases_escape_weight_decay():
    of = tiny.made(tiny.SPEC._replace(bias=True), lora=None)
    parameters = as_jax(tiny.numbers(of))
    update = optimiser(Optim(learning_rate=1e-2, warmup_steps=0, steps=10, weight_decay=0.5))
    nothing = jax.tree.map(jnp.zeros_like, parameters)
    updates, _ = update.update(nothing, update.init(parameters), parameters)
    assert {name for name in updates if not np.any(updates[name])} == {
        "norm/scale",
        "layers/attention_norm/scale",
        "layers/ff_norm/scale",
        *(name for name in updates if name.endswith("/bias")),
    }
    assert "layers/ff/up/bias" in updates
    kernel = "layers/ff/up/kernel"
    assert np.allclose(updates[kernel], -1e-2 * 0.5 * parameters[kernel], rtol=1e-5)


def test_adapters_are_decayed():
    of = tiny.made()
    parameters = as_jax({name: tiny.numbers(of)[name] for name in of.trained})
    update = optimiser(Optim(learning_rate=1e-2, warmup_steps=0, steps=10, weight_decay=0.5))
    updates, _ = update.update(
        jax.tree.map(jnp.zeros_like, parameters), update.init(parameters), parameters
    )
    for name, value in updates.items():
        assert np.allclose(value, -1e-2 * 0.5 * parameters[name], rtol=1e-5)
