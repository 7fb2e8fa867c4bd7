"""Pooling against NumPy, for packed rows and for texts that are not there."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from e5jax.model.pooling import pool, unit

# Texts of each row, one behind the other; the first row ends in padding, the last has no text.
LENGTHS = [[3, 5], [1, 1, 8], [12], []]
WIDTH, MOST, HIDDEN = 12, 3, 16
WANTED = {
    "last": lambda own: own[-1],
    "mean": lambda own: own.mean(axis=0),
    "weighted_mean": lambda own: np.average(own, axis=0, weights=np.arange(1, len(own) + 1)),
}


@pytest.fixture(scope="module")
def packed() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    hidden = (
        np.random.default_rng(0).standard_normal((len(LENGTHS), WIDTH, HIDDEN)).astype(np.float32)
    )
    segments = np.zeros((len(LENGTHS), WIDTH), np.int32)
    ends = np.full((len(LENGTHS), MOST), -1, np.int32)
    for row, lengths in enumerate(LENGTHS):
        start = 0
        for number, length in enumerate(lengths):
            segments[row, start : start + length] = number + 1
            start += length
            ends[row, number] = start - 1
    return hidden, segments, ends


@pytest.mark.parametrize("pooling", ["last", "mean", "weighted_mean"])
def test_vectors_equal_numpys_and_absent_texts_are_zero(packed, pooling):
    hidden, segments, _ = packed
    found = np.asarray(pool(*map(jnp.asarray, packed), pooling))
    assert found.shape == (len(LENGTHS), MOST, HIDDEN)
    for row, lengths in enumerate(LENGTHS):
        for number in range(MOST):
            if number >= len(lengths):
                assert not found[row, number].any()
                continue
            own = hidden[row].astype(np.float64)[segments[row] == number + 1]
            vector = WANTED[pooling](own)
            # One float32 division and root.
            assert np.allclose(found[row, number], vector / np.linalg.norm(vector), atol=1e-6)
            assert np.linalg.norm(found[row, number]) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("pooling", ["last", "mean", "weighted_mean"])
def test_padding_does_not_reach_a_vector(packed, pooling):
    hidden, segments, ends = packed
    other = np.where(segments[..., None] > 0, hidden, 1e6).astype(np.float32)
    vectors = [
        np.asarray(pool(jnp.asarray(x), jnp.asarray(segments), jnp.asarray(ends), pooling))
        for x in (hidden, other)
    ]
    assert np.array_equal(*vectors)


@pytest.mark.parametrize("pooling", ["last", "mean", "weighted_mean"])
def test_bfloat16_states_give_float32_unit_vectors(packed, pooling):
    hidden, segments, ends = map(jnp.asarray, packed)
    found = pool(hidden.astype(jnp.bfloat16), segments, ends, pooling)
    assert found.dtype == jnp.float32
    assert np.allclose(np.linalg.norm(found, axis=-1)[np.asarray(ends) >= 0], 1, atol=1e-6)


def test_zero_has_no_direction_and_a_finite_gradient():
    x = jnp.zeros((2, 5)).at[1].set(3.0)
    assert not np.any(unit(x)[0])
    assert np.allclose(unit(x)[1], 5**-0.5)
    gradient = jax.grad(lambda x: jnp.sum(unit(x) * jnp.arange(5.0)[None]))(x)
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize("size", [1e-10, 1e-3, 1e10])
def test_length_does_not_matter(size):
    vector = np.random.default_rng(0).standard_normal(7)
    assert np.allclose(
        unit(jnp.asarray(size * vector, jnp.float32)), vector / np.linalg.norm(vector), atol=1e-6
    )


@pytest.mark.parametrize("pooling", ["last", "mean", "weighted_mean"])
def test_what_a_row_shares_belongs_to_each_of_its_texts(packed, pooling):
    hidden, segments, ends = packed
    first = np.random.default_rng(1).standard_normal((len(LENGTHS), 2, HIDDEN)).astype(np.float32)
    wide = (
        np.concatenate([first, hidden], axis=1),
        np.pad(segments, ((0, 0), (2, 0)), constant_values=-1),
    )
    found = np.asarray(
        pool(*map(jnp.asarray, (*wide, np.where(ends >= 0, ends + 2, -1))), pooling, 2)
    )
    for row, lengths in enumerate(LENGTHS):
        for number in range(MOST):
            own = np.concatenate([first[row], hidden[row][segments[row] == number + 1]]).astype(
                np.float64
            )
            vector = WANTED[pooling](own)
            wanted = vector / np.linalg.norm(vector) if number < len(lengths) else 0 * vector
            np.testing.assert_allclose(found[row, number], wanted, atol=1e-6)
