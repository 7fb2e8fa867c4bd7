"""Candidates for `rescore.search` from a FAISS index, in memory."""

from collections.abc import Callable

import faiss
import numpy as np
from jaxtyping import Float, Int

from e5jax.errors import ConfigError
from e5jax.inference.vector_quantization import (
    BITS,
    INTEGERS,
    STEPS,
    Store,
    quantise,
    step_of,
    unsigned,
)

LINKS = 32  # of each row in a graph
LOOKED = 128  # rows that a search of a graph keeps in view, at least


Search = Callable[
    [Float[np.ndarray, "q d"], int], Int[np.ndarray, "q c"]
]  # queries and how many places each


def faiss_index(store: Store, *, graph: bool = False) -> Search:
    """A function from float queries and a count to the places of as many candidates, -1 where there are fewer.

    Bits are compared one by one, or along a graph of near neighbours (HNSW, arXiv 1603.09320) that finds most of them much
    sooner; integers one by one. Raises ConfigError for what FAISS has no index for.
    """
    if graph and store.precision not in BITS:
        raise ConfigError(
            f"graph of {store.precision}: only bits have a distance that a graph can follow; leave graph off"
        )
    if store.precision in BITS:
        return _graph(store) if graph else _flat_bits(store)
    return _levels(store) if store.precision in INTEGERS else _floats(store)


def _flat_bits(store: Store) -> Search:
    index = faiss.IndexBinaryFlat(8 * store.vectors.shape[1])
    index.add(_bytes(store))
    return lambda queries, count: index.search(quantise(queries, "ubinary"), count)[1]


def _graph(store: Store) -> Search:
    index = faiss.IndexBinaryHNSW(8 * store.vectors.shape[1], LINKS)
    index.add(_bytes(store))

    def candidates(queries: np.ndarray, count: int) -> np.ndarray:
        index.hnsw.efSearch = max(LOOKED, count)
        return index.search(quantise(queries, "ubinary"), count)[1]

    return candidates


def _levels(store: Store) -> Search:
    """FAISS' own numbers of 8 bits, with our ranges in place of those that it would find: its levels are then ours.

    Its "direct" levels would cut queries to whole numbers wherever their number is a multiple of 16.
    """
    assert store.ranges is not None, "a store of integers has ranges"
    index = faiss.IndexScalarQuantizer(
        store.dimensions, faiss.ScalarQuantizer.QT_8bit, faiss.METRIC_INNER_PRODUCT
    )
    wide = np.concatenate([store.ranges[0], STEPS * step_of(store.ranges)])
    faiss.copy_array_to_vector(wide.astype(np.float32), index.sq.trained)
    index.is_trained = True
    index.add_sa_codes(_bytes(store))
    return lambda queries, count: index.search(np.ascontiguousarray(queries, np.float32), count)[1]


def _floats(store: Store) -> Search:
    index = faiss.IndexFlatIP(store.dimensions)
    index.add(np.ascontiguousarray(store.vectors, np.float32))
    return lambda queries, count: index.search(np.ascontiguousarray(queries, np.float32), count)[1]


def _bytes(store: Store) -> np.ndarray:
    return np.ascontiguousarray(unsigned(store.vectors, store.precision))
