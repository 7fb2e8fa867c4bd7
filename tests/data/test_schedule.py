"""Shares of draws, against requests in exact arithmetic; nothing here reads a text."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chi2

from e5jax.config.mixture import Dataset, Mixture
from e5jax.data.sampler import (
    BLOCK,
    Random,
    fork,
    make_sampler,
    split,
    step_of,
    upper_bounds,
)

weights_lists = st.lists(
    st.one_of(st.integers(1, 20), st.integers(1, 2**30)), min_size=1, max_size=20
)


def counts(weights: list[int], units: np.ndarray) -> np.ndarray:
    found = split(fork(weights), units)
    return np.stack([found[number] for number in range(len(weights))], axis=1)


@given(weights_lists, st.integers(0, 10**6))
def test_each_unit_is_from_one_set_and_no_set_is_far_from_its_share(weights, start):
    found = counts(weights, np.arange(start, start + 300))
    assert (found.sum(axis=1) == np.arange(start, start + 300)).all()
    assert (np.diff(found, axis=0) >= 0).all()
    wanted = [
        [Fraction(weight * units, sum(weights)) for weight in weights]
        for units in (start, start + 299)
    ]
    for row, exact in zip(found[[0, -1]].tolist(), wanted, strict=True):
        assert all(abs(have - want) < 2 for have, want in zip(row, exact, strict=True))


@given(weights_lists, st.integers(1, 5))
def test_after_as_many_units_as_the_weights_sum_to_every_set_has_its_weight(weights, times):
    found = split(fork(weights), times * sum(weights))
    assert [found[number] for number in range(len(weights))] == [
        times * weight for weight in weights
    ]


@given(weights_lists, st.integers(1, 200), st.integers(0, 10**6))
def test_no_run_of_units_takes_more_than_is_said(weights, length, start):
    found = counts(weights, np.arange(start, start + 200 + length))
    bound = upper_bounds(fork(weights), length)
    assert (
        found[length:] - found[:-length] <= [bound[number] for number in range(len(weights))]
    ).all()


SIZES = {"a": 700_000, "b": 150_000, "c": 90_000, "d": 50_000, "e": 8_000}
QUERIES = 100


def mixture(order: str, shares: str = "ratio") -> Mixture:
    datasets = {
        name: Dataset(files=("x",), ratio=1 / number) for number, name in enumerate(SIZES, 1)
    }
    return Mixture(datasets, shares=shares, alpha=0.5, order=order)


@pytest.mark.parametrize("shares", ["ratio", "size"])
def test_interleaved_every_prefix_is_within_one_batch_of_the_request(shares):
    draws = make_sampler(mixture("interleaved", shares), SIZES, QUERIES, 0)
    numbers = [
        1 / (1 + i) * size if shares == "ratio" else size**0.5
        for i, size in enumerate(SIZES.values())
    ]
    wanted = np.array(numbers) / sum(numbers)
    steps = np.arange(0, 10_001, 7)
    by_step = np.stack([draws.counts(int(step)) for step in steps])
    assert np.abs(by_step - np.outer(steps * QUERIES, wanted)).max() < QUERIES / 10


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_random_a_million_draws_have_the_shares_and_the_spread_of_chance(seed):
    draws = make_sampler(mixture("random"), SIZES, QUERIES, seed)
    totals = draws.counts(10_000)
    wanted = np.array([size / number for number, size in enumerate(SIZES.values(), 1)])
    wanted *= 1_000_000 / wanted.sum()
    assert totals.sum() == 1_000_000
    statistic = float(np.sum((totals - wanted) ** 2 / wanted))
    low, high = chi2.ppf([5e-4, 1 - 5e-4], len(SIZES) - 1)  # too good is as suspicious as too bad
    assert low < statistic < high


@given(st.integers(0, 3 * BLOCK), st.integers(0, 3 * BLOCK))
def test_random_counts_do_not_depend_on_what_was_asked_before(first, second):
    used = Random([5, 3, 2], [9, 9, 9], 12, 1, seed=3)
    used(first)
    np.testing.assert_array_equal(used(second), Random([5, 3, 2], [9, 9, 9], 12, 1, seed=3)(second))


def test_random_no_set_gives_more_than_its_most_and_every_batch_is_full():
    order = Random([900, 50, 50], [4, 6, 7], 10, 1, seed=0)
    found = np.diff(np.stack([order(step) for step in range(300)]), axis=0)
    assert (found.sum(axis=1) == 10).all()
    assert (found <= [4, 6, 7]).all()
    assert found[:, 0].tolist() == [4] * 299  # nine of ten units would be from it


@pytest.mark.parametrize("order", ["interleaved", "random"])
@pytest.mark.parametrize("batches", ["mixed", "homogeneous"])
def test_the_step_of_a_draw_is_the_one_that_takes_it(order, batches):
    draws = make_sampler(
        Mixture(mixture(order).datasets, order=order, batches=batches), SIZES, QUERIES, 0
    )
    given = np.stack([draws.counts(step) for step in range(3_000)])
    for number in range(len(SIZES)):
        rate = given[-1][number] / len(given)
        for draw in np.linspace(0, given[-1][number] - 1, 30).astype(int).tolist():
            step = int(np.searchsorted(given[:, number], draw, "right")) - 1
            assert (
                step_of(draws.counts, number, draw, rate)
                == step_of(draws.counts, number, draw, 2 * rate)
                == step
            )
