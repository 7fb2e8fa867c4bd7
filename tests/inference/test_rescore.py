"""Two stages against exact search: what the first compares is exact, what both find is nearly all."""

import jax
import numpy as np
import pytest

from benchmarks.faiss_index import faiss_index
from e5jax.errors import ConfigError
from e5jax.inference import search as exact
from e5jax.inference.rescore import _by_integers, first_stage, integer_product, search, weights
from e5jax.inference.vector_quantization import Store, restored, shortened, unsigned
from tests.vectors import corpus

DEVICES = jax.devices()[:2]
K = 10


@pytest.fixture(scope="module")
def data():
    """Queries, rows, and the places of the best ten by exact search."""
    asked, rows = corpus(3_000, 60, 67)
    return asked, rows, exact.top_k(asked, rows, K, DEVICES)[1]


def recall(found: np.ndarray, wanted: np.ndarray) -> float:
    return float(
        np.mean(
            [
                len(set(a) & set(b)) / len(b)
                for a, b in zip(found.tolist(), wanted.tolist(), strict=True)
            ]
        )
    )


@pytest.mark.parametrize("precision", ["binary", "ubinary"])
def test_bits_are_compared_as_bits(data, precision):
    asked, rows, _ = data
    scores, places = first_stage(asked, Store.of(rows, precision), 25, DEVICES)
    distances = np.sum((asked > 0)[:, None] != (rows > 0)[None], axis=2)
    wanted = np.argsort(distances, axis=1, kind="stable")[:, :25]
    np.testing.assert_array_equal(places, wanted)
    np.testing.assert_array_equal(scores, -np.take_along_axis(distances, wanted, axis=1))


@pytest.mark.parametrize("precision", ["int8", "uint8"])
def test_integers_are_multiplied_as_integers(data, precision):
    asked, rows, _ = data
    store = Store.of(rows, precision)
    scores, places = first_stage(asked, store, 25, DEVICES)
    levels = unsigned(store.vectors, precision).astype(np.int64) - 128
    products = weights(asked, store).astype(np.int64) @ levels.T
    wanted = np.argsort(-products, axis=1, kind="stable")[:, :25]
    np.testing.assert_array_equal(places, wanted)
    np.testing.assert_array_equal(scores, np.take_along_axis(products, wanted, axis=1))


def test_steps_of_different_widths_are_weighed_in_the_first_stage():
    asked, rows = corpus(2_000, 40, 32, seed=1)
    wide = np.geomspace(1, 50, 32, dtype=np.float32)[np.random.default_rng(2).permutation(32)]
    rows, asked = rows * wide, asked / np.sqrt(wide)
    wanted = exact.top_k(asked, rows, K, DEVICES)[1]
    assert recall(first_stage(asked, Store.of(rows, "int8"), K, DEVICES)[1], wanted) > 0.9


def test_sums_of_more_products_than_a_float_holds_are_exact():
    random = np.random.default_rng(0)
    asked, rows = (
        random.integers(-127, 128, (4, 2_500)).astype(np.int8),
        random.integers(-128, 128, (30, 2_500)).astype(np.int8),
    )
    asked[0], rows[0] = 127, 127  # 40 million
    wanted = (asked.astype(np.int64) @ rows.T.astype(np.int64)).astype(np.float32)
    np.testing.assert_array_equal(jax.jit(integer_product)(asked, rows), wanted)
    np.testing.assert_array_equal(jax.jit(_by_integers)(asked, rows), wanted)


@pytest.mark.parametrize(
    ("precision", "least"), [("float32", 1.0), ("int8", 0.98), ("uint8", 0.98), ("binary", 0.65)]
)
def test_nearly_all_is_found_that_exact_search_finds(data, precision, least):
    asked, rows, wanted = data
    store = Store.of(rows, precision)
    scores, places = search(asked, store, K, oversample=8, devices=DEVICES)
    assert recall(places, wanted) >= least
    assert (np.diff(scores, axis=1) <= 0).all()
    np.testing.assert_allclose(
        scores, np.einsum("qd,qkd->qk", asked, store.rows(places)), atol=1e-5
    )


def test_scoring_bits_again_by_finer_numbers_finds_more(data):
    asked, rows, wanted = data
    bits, fine = Store.of(rows, "binary"), Store.of(rows, "int8")
    alone = recall(first_stage(asked, bits, K, DEVICES)[1], wanted)
    again = recall(search(asked, bits, K, devices=DEVICES)[1], wanted)
    finer = recall(search(asked, bits, K, oversample=8, finer=fine, devices=DEVICES)[1], wanted)
    assert alone + 0.02 < again
    assert again + 0.02 < finer
    assert finer > 0.95


def test_leading_dimensions_are_searched_like_all(data):
    asked, rows, _ = data
    cut, whole = (shortened(x, 16) for x in (asked, rows))
    wanted = exact.top_k(cut, whole, K, DEVICES)[1]
    assert recall(search(cut, Store.of(whole, "int8"), K, devices=DEVICES)[1], wanted) >= 0.97


@pytest.mark.parametrize(
    ("precision", "graph"),
    [("binary", False), ("binary", True), ("int8", False), ("float32", False)],
)
@pytest.mark.parametrize("dimensions", [67, 64])
def test_an_index_of_faiss_gives_candidates(data, precision, graph, dimensions):
    asked, rows = (shortened(x, dimensions) for x in data[:2])
    wanted = exact.top_k(asked, rows, K, DEVICES)[1]
    store = Store.of(rows, precision)
    own = search(asked, store, K, oversample=8, devices=DEVICES)[1]
    found = search(asked, store, K, oversample=8, candidates=faiss_index(store, graph=graph))[1]
    assert recall(found, own) >= 0.9  # ties of bits are broken otherwise, a graph misses some
    assert recall(found, wanted) >= recall(own, wanted) - 0.05


def test_where_there_are_fewer_rows_places_are_missing(data):
    asked, rows, _ = data
    few = Store.of(rows[:7], "binary")
    for candidates in (None, faiss_index(few)):
        scores, places = search(asked, few, K, candidates=candidates, devices=DEVICES)
        assert (np.sort(places, axis=1) == [-1] * 3 + list(range(7))).all()
        assert (places[:, 7:] == -1).all()
        assert (scores[:, 7:] == -np.inf).all()


def test_what_does_not_fit_is_named(data):
    asked, rows, _ = data
    store = Store.of(rows, "binary")
    with pytest.raises(
        ConfigError, match=r"queries float32 \[60, 8\]: must be floats of 67 dimensions"
    ):
        search(asked[:, :8], store, K)
    with pytest.raises(ConfigError, match="queries int8"):
        search(Store.of(asked, "int8").vectors, store, K)
    with pytest.raises(ConfigError, match="oversample=0"):
        search(asked, store, K, oversample=0)
    with pytest.raises(ConfigError, match="graph of int8"):
        faiss_index(Store.of(rows, "int8"), graph=True)


def test_restored_rows_of_a_store_are_those_of_its_parts(data):
    _, rows, _ = data
    store = Store.of(rows, "int8")
    np.testing.assert_array_equal(
        store.rows(np.array([5, 2])), restored(store.vectors[[5, 2]], "int8", 67, store.ranges)
    )
