"""LoRA against PEFT: gradients, an adapter's start, folding, sizes of the 7B recipe."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from e5jax.config import TARGETS, Lora
from e5jax.model.dense import fold
from e5jax.model.model_def import ModelDef, model_def
from e5jax.model.spec import Spec
from e5jax.train.flops import parameters
from tests import tiny

SPEC = tiny.SPEC._replace(layers=2)
LENGTHS = [13, 7, 1, 10]
MISTRAL_7B = Spec("mistral", 32_000, 4_096, 14_336, 32, 32, 8, 128, 10_000.0, 4_096, 1e-5, 1, 2)


def padded() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(tokens, segments, positions) of right-padded texts."""
    tokens = (
        np.random.default_rng(0)
        .integers(3, SPEC.vocab, (len(LENGTHS), max(LENGTHS)))
        .astype(np.int32)
    )
    place = np.arange(max(LENGTHS), dtype=np.int32)[None]
    segments = (place < np.array(LENGTHS)[:, None]).astype(np.int32)
    return tokens, segments, place * segments


@pytest.mark.filterwarnings(tiny.PEFT_WARNING)
@pytest.mark.parametrize(
    ("inside", "sizes"),
    [(False, (1, 1, 1)), (True, (1, 1, 1)), (True, (1, 2, 2))],
    ids=["beside the kernel", "inside it", "inside it, sharded"],
)
def test_gradients_of_all_adapters_equal_those_of_peft(inside, sizes):
    of = model_def(
        SPEC, tiny.LORA, dtype="float32", remat="projections", kernel="xla", inside=inside
    )
    values = tiny.numbers(of)
    assert set(of.lora) == set(TARGETS)
    tokens, segments, positions = padded()
    weights = (
        np.random.default_rng(1).standard_normal((*tokens.shape, SPEC.hidden)).astype(np.float32)
        * segments[..., None]
    )
    on = tiny.mesh(*sizes)
    trained, frozen = tiny.place(of, values, on)
    with jax.set_mesh(on):
        rows = tiny.rows(on, tokens, segments, positions)
        found = jax.jit(
            jax.grad(lambda t: jnp.sum(jnp.sin(of.decoder(frozen | t)(*rows)) * weights))
        )(trained)

    model = tiny.peft_mistral(of, values)
    states = model(
        input_ids=torch.from_numpy(tokens).long(), attention_mask=torch.from_numpy(segments)
    ).last_hidden_state
    (torch.sin(states) * torch.from_numpy(weights)).sum().backward()
    assert len(tiny.adapters(of)) == SPEC.layers * len(TARGETS) * 2
    for name, layer, factor in tiny.adapters(of):
        wanted = tiny.peft_factor(model, name, layer, factor).grad.numpy().T
        assert np.linalg.norm(wanted) > 1e-2
        difference = np.linalg.norm(found[f"{name}/{factor}"][layer] - wanted) / np.linalg.norm(
            wanted
        )
        # float32 sums in another order, forward and backward through two layers; an error of formula is of order 1.
        assert difference <= 1e-4, (name, layer, factor)


@pytest.fixture(scope="module")
def states():
    """(blueprint, parameters) -> hidden states of the padded rows on one device."""
    on = tiny.mesh(1, 1, 1)

    def run(of: ModelDef, values: dict[str, np.ndarray]) -> np.ndarray:
        trained, frozen = tiny.place(of, values, on)
        with jax.set_mesh(on):
            jitted = jax.jit(lambda p, *rows: of.decoder(p)(*rows))
            return np.asarray(jitted(trained | frozen, *tiny.rows(on, *padded())))

    return run


def test_a_new_adapter_changes_nothing(states):
    of, bare = tiny.made(SPEC), tiny.made(SPEC, lora=None)
    fresh = of.initialise(of.trained, tiny.mesh(1, 1, 1), seed=0)
    values = tiny.numbers(of) | {name: np.asarray(value) for name, value in fresh.items()}
    base = {name: values[name] for name in bare.leaves}
    assert np.array_equal(states(of, values), states(bare, base))
    for name, value in fresh.items():
        if name.endswith("lora_b"):
            assert not np.any(value)
        else:
            # kaiming_uniform(a=sqrt(5)) as in PEFT: uniform up to 1 / sqrt(fan in), standard deviation bound / sqrt(3).
            bound = value.shape[1] ** -0.5
            assert np.abs(value).max() <= bound
            assert np.std(value) == pytest.approx(
                bound / math.sqrt(3), rel=0.2
            )  # 500 to 1,000 numbers: 4 sigma is 13 %


def test_a_folded_adapter_gives_the_states_of_the_adapter(states):
    of, bare = tiny.made(SPEC), tiny.made(SPEC, lora=None)
    values = tiny.numbers(of)
    merged = {name: values[name] for name in bare.leaves}
    for name, leaf in of.leaves.items():
        if leaf.is_adapter and name.endswith("lora_a"):
            kernel, a, b = (
                name.replace("lora_a", "kernel"),
                values[name],
                values[name.replace("lora_a", "lora_b")],
            )
            merged[kernel] = np.stack(
                [fold(*one, scale=2.0) for one in zip(values[kernel], a, b, strict=True)]
            )
    found, real = states(of, values), padded()[1] > 0
    # x (W + s A B) and x W + s (x A) B differ by float32 rounding.
    assert np.abs(found - states(bare, merged))[real].max() <= 1e-4
    base = {name: values[name] for name in bare.leaves}
    assert np.abs(found - states(bare, base))[real].max() > 1e-2


def test_dropout_reaches_only_the_adapter_also_of_one_that_may_go_inside_the_kernel():
    lora, on = Lora(rank=4, alpha=8.0, dropout=0.5), tiny.mesh(1, 1, 1)

    def run(inside: bool, seeds: np.ndarray | None) -> np.ndarray:
        of = model_def(SPEC, lora, dtype="float32", remat="nothing", kernel="xla", inside=inside)
        trained, frozen = tiny.place(of, tiny.numbers(of), on)
        with jax.set_mesh(on):
            jitted = jax.jit(lambda p, *inputs: of.decoder(p)(*inputs))
            return np.asarray(jitted(trained | frozen, *tiny.rows(on, *padded()), seeds))

    seeds = np.arange(SPEC.layers, dtype=np.uint32)
    wanted = run(False, seeds)
    assert np.array_equal(run(True, seeds), wanted)
    assert np.abs(run(True, None) - wanted)[padded()[1] > 0].max() > 1e-2


@pytest.mark.parametrize("targets", [("q",), ("q", "v"), ("gate", "up", "down"), TARGETS])
def test_only_the_targets_are_adapted_and_trained(targets):
    of = tiny.made(SPEC, Lora(rank=4, targets=targets))
    assert {name.split("/")[-2] for name in of.trained} == set(targets)
    assert {name.split("/")[-1] for name in of.trained} == {"lora_a", "lora_b"}
    assert set(of.frozen) == set(tiny.made(SPEC, lora=None).leaves)


def test_without_adapters_every_parameter_is_trained():
    of = tiny.made(SPEC, lora=None)
    assert set(of.trained) == set(of.leaves)
    assert not of.frozen


def test_the_7b_recipe_trains_41943040_of_6979321856_matrix_parameters():
    of = model_def(MISTRAL_7B, Lora(rank=16), dtype="bfloat16", remat="projections", kernel="xla")
    assert parameters(of, of.trained) == 41_943_040
    assert parameters(of, [name for name in of.frozen if name.endswith("/kernel")]) == 6_979_321_856
    assert MISTRAL_7B.matrix_parameters == 6_979_321_856
