import pytest

from e5jax.config import Lora
from e5jax.model.spec import Spec
from e5jax.train.flops import model_flops, parameters
from tests import tiny

MISTRAL_7B = Spec("mistral", 32_000, 4_096, 14_336, 32, 32, 8, 128, 10_000.0, None, 1e-5, 1, 2)

# The tiny spec: hidden 64, ff 128, 3 layers, 4 heads and 2 kv heads of 16, vocabulary 97.
# q 64·64, k and v 64·32 each, o 64·64; gate, up and down 64·128 each.
MATRICES = 3 * (64 * 64 + 2 * 64 * 32 + 64 * 64 + 3 * 64 * 128)
# Rank 4: inputs and outputs of q 64+64, k and v 64+32 each, o 64+64, gate and up 64+128 each, down 128+64.
ADAPTERS = 3 * 4 * (128 + 2 * 96 + 128 + 3 * 192)
ATTENTION = 6 * 3 * 4 * 16


def test_adapters_cost_six_and_frozen_matrices_four_flops_a_token():
    made = tiny.made()
    assert model_flops(made, 1, 0) == 4 * MATRICES + 6 * ADAPTERS
    assert model_flops(made, 50, 0) == 50 * (4 * MATRICES + 6 * ADAPTERS)


def test_without_adapters_every_matrix_costs_six_flops_a_token():
    assert model_flops(tiny.made(lora=None), 50, 0) == 50 * 6 * MATRICES


def test_only_the_adapted_maps_count():
    made = tiny.made(lora=Lora(rank=4, targets=("q", "down")))
    assert model_flops(made, 1, 0) == 4 * MATRICES + 6 * 3 * 4 * (128 + 192)


@pytest.mark.parametrize("lora", [None, tiny.LORA], ids=["base", "adapters"])
def test_attention_adds_its_share_of_the_squared_lengths(lora):
    made = tiny.made(lora=lora)
    assert model_flops(made, 30, 500) - model_flops(made, 30, 0) == 500 * ATTENTION


def test_mistral_7b_with_rank_16_has_the_published_numbers():
    made = tiny.made(MISTRAL_7B, Lora(rank=16))
    assert MISTRAL_7B.matrix_parameters == 6_979_321_856
    assert parameters(made, made.trained) == 41_943_040
    assert model_flops(made, 1, 0) == 4 * 6_979_321_856 + 6 * 41_943_040
    assert model_flops(made, 0, 1) == 6 * 32 * 32 * 128


@pytest.mark.parametrize("spec", [tiny.SPEC, MISTRAL_7B], ids=["tiny", "7B"])
def test_parameters_are_matrices_norms_and_the_table(spec):
    made = tiny.made(spec)
    norms = spec.hidden * (2 * spec.layers + 1)
    assert (
        parameters(made, made.frozen) == spec.matrix_parameters + norms + spec.vocab * spec.hidden
    )
    assert parameters(made, []) == 0
