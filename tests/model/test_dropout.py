"""The hash-based mask: its share, its mean, its independence, and that the mesh does not matter."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from e5jax.config import TARGETS, Lora
from e5jax.mesh import BATCH
from e5jax.model import dropout
from tests import tiny

SHAPE = (8, 32, 256)
COUNT = 8 * 32 * 256


@pytest.fixture(scope="module")
def drop():
    """(rate, seed, map, x, sizes) -> dropped x."""
    run = jax.jit(dropout.dropout, static_argnums=(1, 3))

    def dropped(rate=0.1, seed=7, number=0, x=None, sizes=(1, 1, 1)):
        on = tiny.mesh(*sizes)
        x = np.ones(SHAPE, np.float32) if x is None else x
        with jax.set_mesh(on):
            placed = jax.device_put(x, NamedSharding(on, PartitionSpec(BATCH, None, "tensor")))
            return np.asarray(run(placed, rate, jnp.uint32(seed), number))

    return dropped


@pytest.mark.parametrize("rate", [0.01, 0.1, 0.5, 0.9])
@pytest.mark.parametrize("seed", [0, 1, 2**32 - 1])
def test_share_kept_is_one_minus_the_rate(drop, rate, seed):
    kept = np.mean(drop(rate, seed) != 0)
    assert abs(kept - (1 - rate)) <= 4 * np.sqrt(rate * (1 - rate) / COUNT)


def test_mean_is_preserved(drop):
    x = np.random.default_rng(0).standard_normal(SHAPE).astype(np.float32) + 1
    y = drop(0.25, x=x)
    assert np.allclose(y[y != 0], x[y != 0] / 0.75, rtol=1e-6)
    # Standard deviation of the mean: sqrt(E[x²] rate / (1 - rate) / count).
    assert abs(y.mean() - x.mean()) <= 4 * np.sqrt(np.mean(x**2) * 0.25 / 0.75 / COUNT)


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    return abs(np.corrcoef((a != 0).ravel(), (b != 0).ravel())[0, 1])


def test_masks_of_the_maps_of_a_layer_are_independent(drop):
    masks = [drop(0.5, number=number) for number in range(len(TARGETS))]
    for a, b in itertools.combinations(masks, 2):
        assert correlation(a, b) <= 5 / np.sqrt(COUNT)  # 5 sigma: 21 pairs


def test_masks_of_neighbouring_seeds_are_independent(drop):
    masks = [drop(0.5, seed=seed) for seed in (0, 1, 2, 3, 2**31)]
    for a, b in itertools.combinations(masks, 2):
        assert correlation(a, b) <= 5 / np.sqrt(COUNT)


def test_masks_of_rows_tokens_and_channels_are_independent(drop):
    mask = drop(0.5)
    for axis in range(3):
        parts = np.moveaxis(mask, axis, 0)[:8]
        for a, b in itertools.combinations(parts, 2):
            assert correlation(a, b) <= 5 / np.sqrt(a.size)


def test_every_chunk_and_layer_has_its_own_seed_which_depends_on_the_key():
    first, second = (np.asarray(dropout.seeds(jax.random.key(key), (16, 32))) for key in (0, 1))
    assert first.dtype == np.uint32
    assert len(np.unique([first, second])) == first.size + second.size


def test_a_mask_is_the_same_every_time_and_on_every_mesh(drop):
    alone = drop()
    assert np.array_equal(alone, drop())
    for sizes in ((2, 2, 2), (8, 1, 1), (1, 1, 8)):
        assert np.array_equal(alone, drop(sizes=sizes))


def test_rate_zero_is_the_identity(drop):
    x = np.random.default_rng(0).standard_normal(SHAPE).astype(np.float32)
    assert np.array_equal(drop(0.0, x=x), x)


def test_bfloat16_keeps_its_type(drop):
    assert drop(x=np.ones(SHAPE, jnp.bfloat16)).dtype == jnp.bfloat16


@pytest.fixture(scope="module")
def decoded():
    """(rate, seeds) -> hidden states of one text of a two-layer decoder."""
    on = tiny.mesh(1, 1, 1)
    tokens = np.arange(3, 13, dtype=np.int32)[None]
    rows = (tokens, np.ones_like(tokens), tokens - 3)

    def states(rate: float, seeds: list[int] | None) -> np.ndarray:
        of = tiny.made(tiny.SPEC._replace(layers=2), Lora(rank=4, alpha=8.0, dropout=rate))
        trained, frozen = tiny.place(of, tiny.numbers(of), on)
        with jax.set_mesh(on):
            run = jax.jit(lambda p, seeds, *rows: of.decoder(p)(*rows, seeds))
            numbers = None if seeds is None else jnp.asarray(seeds, jnp.uint32)
            return np.asarray(run(trained | frozen, numbers, *tiny.rows(on, *rows)))

    return states


def test_a_decoder_drops_only_when_given_seeds_and_a_rate(decoded):
    still = decoded(0.0, None)
    assert np.array_equal(decoded(0.3, None), still)
    assert np.array_equal(decoded(0.0, [1, 2]), still)
    one, same, first_layer, second_layer = (
        decoded(0.3, seeds) for seeds in ([1, 2], [1, 2], [9, 2], [1, 9])
    )
    assert np.array_equal(one, same)
    for other in (still, first_layer, second_layer):
        assert not np.allclose(one, other, atol=1e-3)
