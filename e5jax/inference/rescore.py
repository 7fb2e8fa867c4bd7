"""Search in two stages: stored integers or bits give candidates, float queries put them in order.

The first stage compares integers with integers, exactly: int8 by products, bits by how many agree. The second restores the
candidates and takes their products with the queries as they are. An index of another library may give the candidates instead
(`neighbours`), and other numbers, on a disk say, may be what they are scored by (`finer`).
"""

from collections.abc import Callable, Sequence
from functools import reduce

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from e5jax.config.commands import OVERSAMPLE
from e5jax.errors import ConfigError
from e5jax.inference.search import product, top_k
from e5jax.inference.vector_quantization import (
    BITS,
    INTEGERS,
    Store,
    quantise,
    signed,
    step_of,
    unsigned,
)

HELD = 2**24  # numbers of candidates that are restored at a time
EXACT = 1_024  # products of int8 numbers whose sum float32 holds exactly: 2^24 / (127 · 128)
WORD = 4  # bytes whose bits are compared at once

Candidates = Callable[
    [Float[np.ndarray, "q d"], int], Int[np.ndarray, "q c"]
]  # places, -1 for none


def search(
    queries: Float[np.ndarray, "q d"],
    store: Store,
    k: int,
    *,
    oversample: int = OVERSAMPLE,
    finer: Store | None = None,
    candidates: Candidates | None = None,
    devices: Sequence[jax.Device] | None = None,
) -> tuple[Float[np.ndarray, "q k"], Int[np.ndarray, "q k"]]:
    """Scores (float32) and places (int64) of k rows, best first; the lower place wins a tie, and -1 is for none.

    `queries` are unit vectors of `store.dimensions`. `oversample` · k candidates are scored again, by `finer` where there is one,
    of the same rows. Raises ConfigError for what does not fit.
    """
    if oversample < 1:
        raise ConfigError(
            f"oversample={oversample}: must be at least 1, which only puts the k that are found in order"
        )
    check(queries, store)
    count = k * oversample
    if candidates is None:
        _, places = first_stage(queries, store, count, devices)
    else:
        places = candidates(queries, count)
    return _ordered(queries, finer or store, places, k)


def check(queries: Float[np.ndarray, "q d"], store: Store) -> None:
    """Raises ConfigError when queries are of another kind than the store takes."""
    if queries.dtype.kind != "f" or queries.shape[1:] != (store.dimensions,):
        raise ConfigError(
            f"queries {queries.dtype} {list(queries.shape)}: must be floats of {store.dimensions} dimensions, as are stored"
        )


def first_stage(
    queries: Float[np.ndarray, "q d"],
    store: Store,
    k: int,
    devices: Sequence[jax.Device] | None = None,
) -> tuple[Float[np.ndarray, "q k"], Int[np.ndarray, "q k"]]:
    """Scores and places of the k rows whose integers or bits score highest; of a float32 store, its own products."""
    if store.precision in BITS:
        asked = _words(quantise(queries, "ubinary"))
        return top_k(
            asked, _words(unsigned(store.vectors, store.precision)), k, devices, score=agreement
        )
    if store.precision in INTEGERS:
        return top_k(
            weights(queries, store),
            signed(store.vectors, store.precision),
            k,
            devices,
            score=integer_product,
        )
    return top_k(queries, store.vectors, k, devices)


def weights(queries: Float[np.ndarray, "q d"], store: Store) -> Int[np.ndarray, "q d"]:
    """Queries as int8, each number by the width of a step of its dimension: their products with integers rank as with numbers.

    A stored number is `least + step · level`; what `least` adds is the same for all rows.
    """
    assert store.ranges is not None, "a store of integers has ranges"
    scaled = queries * step_of(store.ranges)
    return np.rint(
        scaled * (127 / np.maximum(np.abs(scaled).max(axis=1, keepdims=True), 1e-30))
    ).astype(np.int8)


def integer_product(queries: Int[Array, "q d"], rows: Int[Array, "p d"]) -> Float[Array, "q p"]:
    """Products of int8 numbers, summed exactly: by what multiplies integers, or by floats where only these are multiplied fast."""
    return jax.lax.platform_dependent(queries, rows, cpu=_by_floats, default=_by_integers)


def _by_integers(queries: Int[Array, "q d"], rows: Int[Array, "p d"]) -> Float[Array, "q p"]:
    return jnp.einsum("qd,pd->qp", queries, rows, preferred_element_type=jnp.int32).astype(
        jnp.float32
    )


def _by_floats(queries: Int[Array, "q d"], rows: Int[Array, "p d"]) -> Float[Array, "q p"]:
    parts = (slice(start, start + EXACT) for start in range(0, queries.shape[1], EXACT))
    floats = (
        (queries[:, part].astype(jnp.float32), rows[:, part].astype(jnp.float32)) for part in parts
    )
    sums = [product(*each) for each in floats]
    return (
        sums[0]
        if len(sums) == 1
        else reduce(jnp.add, (each.astype(jnp.int32) for each in sums)).astype(jnp.float32)
    )


def agreement(queries: Int[Array, "q w"], rows: Int[Array, "p w"]) -> Float[Array, "q p"]:
    """Minus the number of bits that differ (Hamming distance)."""
    columns = rows.T
    each = (
        jax.lax.population_count(queries[:, word, None] ^ columns[None, word])
        for word in range(queries.shape[1])
    )
    return -reduce(jnp.add, (count.astype(jnp.int32) for count in each)).astype(jnp.float32)


def _words(packed: Int[np.ndarray, "n w"]) -> Int[np.ndarray, "n w"]:
    """The same bits in whole words."""
    if short := -packed.shape[1] % WORD:
        packed = np.pad(packed, ((0, 0), (0, short)))
    return np.ascontiguousarray(packed).view(np.uint32)


def _ordered(
    queries: Float[np.ndarray, "q d"], store: Store, places: Int[np.ndarray, "q c"], k: int
) -> tuple[Float[np.ndarray, "q k"], Int[np.ndarray, "q k"]]:
    """The best k of the candidates by the products of queries with restored rows."""
    each = max(1, HELD // max(places.shape[1] * store.dimensions, 1))
    scores = np.full(places.shape, -np.inf, np.float32)
    for start in range(0, len(queries), each):
        some = slice(start, start + each)
        rows = store.rows(np.maximum(places[some], 0))
        scores[some] = np.einsum(
            "qd,qcd->qc", queries[some].astype(np.float32), rows, optimize=True
        )
    scores[places < 0] = -np.inf
    order = np.lexsort((places, -scores), axis=1)[:, :k]
    return np.take_along_axis(scores, order, axis=1), np.take_along_axis(places, order, axis=1)
