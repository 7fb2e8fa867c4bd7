"""Candidates from an index of FAISS, the only home of that library: `pip install 'e5jax[search]'`.

index = neighbours.faiss_index(store)
scores, places = rescore.search(queries, store, 10, candidates=index)
"""

from collections.abc import Callable

import faiss
import numpy as np
from jaxtyping import Float, Int

from e5jax.compact import BITS, Store, quantise, step_of, unsigned
from e5jax.errors import ConfigError

LINKS = 32  # of each row in a graph
LOOKED = 128  # rows that a search of a graph keeps in view, at least


def faiss_index(store: Store, *, graph: bool = False) -> Callable[[Float[np.ndarray, "q d"], int], Int[np.ndarray, "q c"]]:
    """A function from float queries and a count to the places of as many candidates, -1 where there are fewer.

    Bits are compared one by one, or along a graph of near neighbours (HNSW, arXiv 1603.09320) that finds most of them much
    sooner; integers one by one. Raises ConfigError for what FAISS has no index for.
    """
    if store.precision in BITS:
        return _bits(store, graph)
    if graph:
        raise ConfigError(f"graph of {store.precision}: only bits have a distance that a graph can follow; leave graph off")
    return _numbers(store)


def _bits(store: Store, graph: bool) -> Callable[[np.ndarray, int], np.ndarray]:
    stored = np.ascontiguousarray(unsigned(store.vectors, store.precision))
    width = 8 * stored.shape[1]
    index = faiss.IndexBinaryHNSW(width, LINKS) if graph else faiss.IndexBinaryFlat(width)
    index.add(stored)

    def candidates(queries: np.ndarray, count: int) -> np.ndarray:
        if graph:
            index.hnsw.efSearch = max(LOOKED, count)
        return index.search(quantise(queries, "ubinary"), count)[1]

    return candidates


def _numbers(store: Store) -> Callable[[np.ndarray, int], np.ndarray]:
    if store.precision == "float32":
        index, scale = faiss.IndexFlatIP(store.dimensions), np.ones(store.dimensions, np.float32)
        index.add(np.ascontiguousarray(store.vectors))
    else:
        assert store.ranges is not None, "a store of integers has ranges"
        # Levels as they are, from 0 to 255. What they are counted from adds the same to all rows, and changes no order.
        index, scale = (
            faiss.IndexScalarQuantizer(store.dimensions, faiss.ScalarQuantizer.QT_8bit_direct, faiss.METRIC_INNER_PRODUCT),
            step_of(store.ranges),
        )
        index.add(unsigned(store.vectors, store.precision).astype(np.float32))

    def candidates(queries: np.ndarray, count: int) -> np.ndarray:
        return index.search(np.ascontiguousarray(queries * scale, np.float32), count)[1]

    return candidates
