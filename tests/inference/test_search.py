"""Exact top-k against NumPy: vectors of small whole numbers, so that every product is exact and ties are many."""

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from e5jax.errors import ConfigError
from e5jax.inference.search import Sizes, top_k

SMALL = Sizes(queries=3, rows=32, group=4, looks=(2,))


def whole_numbers(rows: int, width: int, seed: int, most: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).integers(-most, most + 1, (rows, width)).astype(np.float32)


def brute_force(queries: np.ndarray, corpus: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """All scores, sorted; the stable order leaves the lower place first."""
    scores = queries @ corpus.T
    places = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    missing = k - places.shape[1]
    found = np.take_along_axis(scores, places, axis=1)
    return (
        np.pad(found, ((0, 0), (0, max(missing, 0))), constant_values=-np.inf),
        np.pad(places, ((0, 0), (0, max(missing, 0))), constant_values=-1),
    )


def same(found: tuple[np.ndarray, np.ndarray], wanted: tuple[np.ndarray, np.ndarray]) -> None:
    assert found[0].dtype == np.float32
    assert found[1].dtype == np.int64
    np.testing.assert_array_equal(found[1], wanted[1])
    np.testing.assert_array_equal(found[0], wanted[0])


@pytest.fixture(scope="module")
def planted():
    """2,000 queries, 20,000 rows with duplicates, and the answer."""
    queries, corpus = whole_numbers(2_000, 16, 0), whole_numbers(20_000, 16, 1)
    corpus[15_000:15_500] = corpus[:500]
    corpus[19_990:] = queries[:10]
    return queries, corpus, brute_force(queries, corpus, 100)


@pytest.mark.parametrize("devices", [1, 8])
def test_equals_brute_force_with_planted_ties_and_duplicates(planted, devices, tmp_path):
    queries, corpus, wanted = planted
    np.save(tmp_path / "corpus.npy", corpus)
    same(
        top_k(
            queries, np.load(tmp_path / "corpus.npy", mmap_mode="r"), 100, jax.devices()[:devices]
        ),
        wanted,
    )


@pytest.mark.parametrize("devices", [1, 3])
@pytest.mark.parametrize(
    ("queries", "rows", "k"),
    [(7, 1_000, 5), (1, 1, 1), (4, 33, 40), (10, 5, 8), (5, 300, 200), (3, 0, 2), (0, 10, 2)],
)
def test_sizes_need_not_divide_and_k_may_exceed_blocks_and_corpus(queries, rows, k, devices):
    asked, corpus = whole_numbers(queries, 4, 2), whole_numbers(rows, 4, 3)
    same(top_k(asked, corpus, k, jax.devices()[:devices], SMALL), brute_force(asked, corpus, k))


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.integers(0, 200), max_size=4), st.integers(0, 2**32 - 1), st.sampled_from([0, 1, 3])
)
def test_how_the_corpus_is_cut_into_arrays_changes_nothing(cuts, seed, most):
    corpus, asked = whole_numbers(200, 4, seed, most), whole_numbers(5, 4, seed + 1)
    shards = np.split(corpus, sorted(cuts))
    same(top_k(asked, shards, 7, jax.devices()[:2], SMALL), brute_force(asked, corpus, 7))


def test_equal_vectors_are_found_from_the_lowest_place_on():
    scores, places = top_k(
        np.ones((2, 4), np.float32), np.ones((500, 4), np.float32), 50, jax.devices()[:2], SMALL
    )
    np.testing.assert_array_equal(places, np.tile(np.arange(50), (2, 1)))
    np.testing.assert_array_equal(scores, 4)


@pytest.mark.parametrize("order", [1, -1])
def test_sorted_corpora_are_searched_exactly(order):
    corpus = np.arange(1_000, dtype=np.float32)[::order, None].copy()
    asked = np.array([[1], [-1], [0]], np.float32)
    same(top_k(asked, corpus, 10, jax.devices()[:1], SMALL), brute_force(asked, corpus, 10))


def test_queries_of_several_passes_are_all_answered(monkeypatch):
    monkeypatch.setattr("e5jax.inference.search.PASS", 6)
    asked, corpus = whole_numbers(20, 4, 5), whole_numbers(100, 4, 6)
    same(top_k(asked, corpus, 3, jax.devices()[:2], SMALL), brute_force(asked, corpus, 3))


def test_a_vector_that_is_not_a_number_is_never_found_and_hides_none():
    asked, corpus = whole_numbers(6, 4, 7), whole_numbers(200, 4, 8)
    corpus[[0, 17, 199]] = np.nan
    scores, places = top_k(asked, corpus, 197, jax.devices()[:1], SMALL)
    kept = np.setdiff1d(np.arange(200), [0, 17, 199])
    wanted = brute_force(asked, corpus[kept], 197)
    same((scores, places), (wanted[0], kept[wanted[1]]))


def test_half_precision_vectors_are_scored_in_float32():
    asked, corpus = whole_numbers(6, 4, 9), whole_numbers(200, 4, 10)
    same(
        top_k(asked, corpus.astype(np.float16), 5, jax.devices()[:1], SMALL),
        brute_force(asked, corpus, 5),
    )


def test_progress_counts_every_row_once():
    told = []
    top_k(
        whole_numbers(2, 4, 0), whole_numbers(333, 4, 1), 5, jax.devices()[:2], SMALL, told.append
    )
    assert sum(told) == 333
    assert len(told) > 1


@pytest.mark.parametrize(("k", "width", "named"), [(0, 4, "k=0"), (3, 5, "shape [10, 5]")])
def test_wrong_arguments_are_named(k, width, named):
    with pytest.raises(ConfigError, match=named.replace("[", r"\[")):
        top_k(whole_numbers(2, 4, 0), whole_numbers(10, width, 0), k)
