import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare

from e5jax.data.epochs import key, keys, permute


def whole(size: int, of: np.uint64) -> list[int]:
    return permute(np.arange(size), np.full(size, size), np.full(size, of)).tolist()


@given(st.integers(1, 300), st.integers(0, 2**64 - 1))
def test_every_place_is_gone_to_once(size, of):
    assert sorted(whole(size, np.uint64(of))) == list(range(size))


@given(st.lists(st.integers(1, 40), min_size=1, max_size=5))
def test_sizes_and_keys_beside_each_other_do_not_matter(sizes):
    own = keys(key("any"), np.arange(len(sizes)))
    places = np.concatenate([np.arange(size) for size in sizes])
    together = permute(places, np.repeat(sizes, sizes), np.repeat(own, sizes))
    assert together.tolist() == [
        place for size, one in zip(sizes, own, strict=True) for place in whole(size, one)
    ]


@pytest.mark.parametrize("size", [2, 3, 4])
def test_all_orders_are_as_frequent(size):
    count = 20_000
    own = keys(key("orders", size), np.arange(count))
    orders = np.stack(
        [permute(np.full(count, place), np.full(count, size), own) for place in range(size)], axis=1
    )
    _, found = np.unique(orders, axis=0, return_counts=True)
    assert len(found) == math.factorial(size)
    assert (
        chisquare(found).pvalue > 1e-6
    )  # fixed keys: it cannot fail by chance, only by another network


def test_a_size_beyond_32_bits_is_shuffled_too():
    size = 2**40 + 1
    places = np.array([0, 1, size - 2, size - 1])
    found = permute(places, np.full(4, size), np.full(4, key("large")))
    assert len(set(found.tolist())) == 4
    assert ((found >= 0) & (found < size)).all()
