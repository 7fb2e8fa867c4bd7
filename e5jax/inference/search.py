"""Exact search by inner product: a corpus larger than memory flows in by blocks, the best k of each query flow out.

Rows of a block are spread over the devices, and each device keeps the best k of the rows it has seen. A block costs its
products and one maximum over each group of rows; only groups that beat a query's k-th best are looked into: never more
than k, and after the first blocks a few (docs/decisions/0013-exact-search.md).
"""

import math
from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial, reduce
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float, Int

from e5jax.errors import ConfigError

AXIS = "rows"
PASS = 32_768  # queries of one pass over the corpus: what bounds the memory of the running best


class Sizes(NamedTuple):
    """How the work is cut. Scores of `queries` × `rows` are all that a device holds at a time."""

    queries: int  # of a product
    rows: int  # of a block, on each device
    group: int = 16  # rows that share a maximum
    looks: tuple[int, ...] = (
        16,
        48,
    )  # how many groups of a block are looked into; else as many as can matter


CPU = Sizes(
    queries=512, rows=16_384
)  # fewer queries multiply slower, more scores fall out of the cache
ACCELERATOR = Sizes(queries=2_048, rows=65_536)
BLOCK_BYTES = (
    2**28
)  # of vectors, over all devices: wide ones make up in work for what they lack in number
LANES = 128  # groups, where there are that many, are a multiple of it: what a vector unit has

Shards = Sequence[np.ndarray]  # [p, d] each
Score = Callable[
    [Array, Array], Float[Array, "q p"]
]  # of queries and rows, NaN for what is not to be found


def product(queries: Float[Array, "q d"], rows: Float[Array, "p d"]) -> Float[Array, "q p"]:
    """Inner products."""
    return jnp.einsum("qd,pd->qp", queries, rows, precision="highest")


class Best(NamedTuple):
    """The best k so far, by falling score and then rising place. Places count the rows that the device has seen."""

    scores: Float[Array, "device c q k"]
    places: Int[Array, "device c q k"]


def top_k(
    queries: Float[np.ndarray, "q d"],
    corpus: Float[np.ndarray, "p d"] | Shards,
    k: int,
    devices: Sequence[jax.Device] | None = None,
    sizes: Sizes | None = None,
    progress: Callable[[int], object] | None = None,
    score: Score = product,
) -> tuple[Float[np.ndarray, "q k"], Int[np.ndarray, "q k"]]:
    """Scores (float32) and places (int64) of the k rows with the largest inner product, best first; the lower place wins a tie.

    Floats are scored as float32, integers as they are, by `score`, a function of a module (each is compiled once).

    `corpus` is an array or a sequence of arrays that count on, from memory or from `np.load(mmap_mode="r")`. Where it has fewer
    than k rows, scores are -inf and places -1; rows with NaN are never found. `progress` is told how many rows of the
    corpus have been searched since its last call. Raises ConfigError when widths differ or k is below 1.
    """
    shards = [corpus] if isinstance(corpus, np.ndarray) else corpus
    _check(queries, shards, k)
    devices = jax.local_devices() if devices is None else devices
    sizes = _fitted(
        sizes or (CPU if devices[0].platform == "cpu" else ACCELERATOR),
        queries,
        _rows(shards),
        len(devices),
    )
    mesh = jax.make_mesh((len(devices),), (AXIS,), axis_types=(AxisType.Explicit,), devices=devices)
    step = _step(mesh, sizes, score)
    found = [
        _pass(step, queries[start : start + PASS], shards, k, mesh, sizes, progress)
        for start in range(0, len(queries), PASS)
    ]
    if not found:
        return np.zeros((0, k), np.float32), np.zeros((0, k), np.int64)
    return np.concatenate([scores for scores, _ in found]), np.concatenate(
        [places for _, places in found]
    )


def _check(queries: np.ndarray, shards: Shards, k: int) -> None:
    if k < 1:
        raise ConfigError(f"k={k}: must be at least 1")
    for shard in shards:
        if shard.ndim != 2 or shard.shape[1] != queries.shape[1]:
            raise ConfigError(
                f"corpus of shape {list(shard.shape)}: queries are [{len(queries)}, {queries.shape[1]}]"
            )


def _rows(shards: Shards) -> int:
    return sum(map(len, shards))


def _dtype(vectors: np.ndarray) -> np.dtype:
    """What they are scored in."""
    return vectors.dtype if vectors.dtype.kind in "iu" else np.dtype(np.float32)


def _fitted(sizes: Sizes, queries: np.ndarray, rows: int, devices: int) -> Sizes:
    """No larger than memory allows, and cut so evenly that little is padded."""
    unit = sizes.group * math.gcd(sizes.rows // sizes.group, LANES)
    held = (
        BLOCK_BYTES
        // (_dtype(queries).itemsize * max(queries.shape[1], 1) * devices)
        // unit
        * unit
    )
    return sizes._replace(
        queries=_even(min(len(queries), PASS), sizes.queries),
        rows=-(-_even(-(-rows // devices), min(sizes.rows, max(held, unit))) // unit) * unit,
    )


def _even(count: int, most: int) -> int:
    """The size of equal parts of `count`, as few as can be with at most `most` in each."""
    return max(-(-count // max(-(-count // most), 1)), 1)


def _pass(
    step: Callable[..., Best],
    queries: np.ndarray,
    shards: Shards,
    k: int,
    mesh: Mesh,
    sizes: Sizes,
    progress: Callable[[int], object] | None,
) -> tuple[np.ndarray, np.ndarray]:
    """One pass over the corpus for some of the queries."""
    spread, whole = (NamedSharding(mesh, PartitionSpec(*axes)) for axes in ((AXIS,), ()))
    count = -(-min(len(queries), PASS) // sizes.queries)
    tiles = np.zeros((count * sizes.queries, queries.shape[1]), _dtype(queries))
    tiles[: len(queries)] = queries
    asked = jax.device_put(tiles.reshape(count, sizes.queries, -1), whole)
    shape = (mesh.size, count, sizes.queries, k)
    best = Best(
        *(
            jax.device_put(np.full(shape, value), spread)
            for value in (np.float32(-np.inf), np.int32(-1))
        )
    )
    for number, (block, filled) in enumerate(_blocks(shards, sizes.rows * mesh.size)):
        before = best
        best = step(
            best,
            asked,
            jax.device_put(block, spread),
            np.int32(number * sizes.rows),
            np.int32(filled),
        )
        jax.block_until_ready(
            before
        )  # one block is read while another is searched, and no more are in memory
        if progress:
            progress(filled)
    return _merged(best, len(queries), sizes.rows)


def _blocks(shards: Shards, rows: int) -> Iterator[tuple[np.ndarray, int]]:
    """The corpus in order in new arrays of `rows` rows, and how many of them are real. NaN, never found, or 0 fills the last."""
    block, filled = None, 0
    for shard in shards:
        done = 0
        while done < len(shard):
            if block is None:
                block = np.empty((rows, shard.shape[1]), _dtype(shard))
            taken = min(rows - filled, len(shard) - done)
            block[filled : filled + taken] = shard[done : done + taken]
            filled, done = filled + taken, done + taken
            if filled == rows:
                yield block, filled
                block, filled = None, 0
    if block is not None:
        block[filled:] = np.nan if block.dtype.kind == "f" else 0
        yield block, filled


def _merged(best: Best, queries: int, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """The best k of all devices, places counted over the whole corpus."""
    devices, _, _, k = best.scores.shape
    scores = np.asarray(best.scores).reshape(devices, -1, k)[:, :queries]
    seen = np.asarray(best.places).reshape(devices, -1, k)[:, :queries].astype(np.int64)
    block, row = np.divmod(seen, rows)
    places = np.where(
        seen < 0, -1, (block * devices + np.arange(devices)[:, None, None]) * rows + row
    )
    scores, places = (
        np.concatenate(list(part), axis=1) for part in (scores, places)
    )  # device after device in each row
    if devices > 1:
        order = np.lexsort((places, -scores), axis=1)[:, :k]
        scores, places = (np.take_along_axis(part, order, axis=1) for part in (scores, places))
    return scores, places


@cache  # else every search would compile anew
def _step(mesh: Mesh, sizes: Sizes, score: Score) -> Callable[..., Best]:
    """The program that takes one block into the best so far."""
    spread, whole = PartitionSpec(AXIS), PartitionSpec()
    local = partial(_search_block, sizes=sizes, score=score)
    return jax.jit(
        jax.shard_map(
            local, mesh=mesh, in_specs=(spread, whole, spread, whole, whole), out_specs=spread
        )
    )


def _search_block(
    best: Best,
    queries: Array,
    block: Array,
    first: Int[Array, ""],
    filled: Int[Array, ""],
    sizes: Sizes,
    score: Score,
) -> Best:
    """On one device: every tile of queries `[c q d]` against its part of the block `[p d]`, of which `filled` rows are real."""
    groups = sizes.rows // sizes.group
    # The members of a group lie `groups` columns apart in the scores, so that maxima are taken over whole vectors.
    rows = block.reshape(groups, sizes.group, -1).swapaxes(0, 1).reshape(sizes.rows, -1)

    def one(tile: tuple[Best, Array]) -> Best:
        kept, asked = tile
        scores = score(asked, rows).reshape(len(asked), sizes.group, groups)
        if jnp.issubdtype(
            block.dtype, jnp.integer
        ):  # floats are NaN themselves where there is no row
            own = filled - jax.lax.axis_index(AXIS) * sizes.rows
            row = jnp.arange(groups)[None, :] * sizes.group + jnp.arange(sizes.group)[:, None]
            scores = jnp.where((row < own)[None], scores, jnp.nan)
        return _take(kept, scores, first, sizes.looks)

    return jax.tree.map(
        lambda part: part[None],
        jax.lax.map(one, (jax.tree.map(lambda part: part[0], best), queries)),
    )


def _take(
    best: Best, scores: Float[Array, "q group p"], first: Int[Array, ""], looks: Sequence[int]
) -> Best:
    """Looks into the groups whose maximum beats a query's k-th best: into as many for every query as one of them needs.

    More than k groups never need looking into: the k with the largest maxima, the lower place first among equals, hold
    k rows that come before every row of another group.
    """
    (_, size, count), k = scores.shape, best.scores.shape[-1]
    with jax.named_scope("maxima"):
        members = [scores[:, member] for member in range(size)]
        most = reduce(
            lambda most, member: jnp.where(member > most, member, most), members, -jnp.inf
        )  # NaN never is

    def look(groups: int, kept: Best) -> Best:
        at = jnp.sort(
            jax.lax.top_k(jnp.where(most == 0, 0.0, most), groups)[1], axis=1
        )  # top_k sets 0 above -0
        inside = jnp.take_along_axis(scores, at[:, None, :], axis=2).swapaxes(1, 2)
        places = first + at[:, :, None] * size + jnp.arange(size, dtype=jnp.int32)[None, None]
        inside = jnp.where(jnp.isnan(inside), -jnp.inf, jnp.where(inside == 0, 0.0, inside))
        return _merge(kept, inside.reshape(len(inside), -1), places.reshape(len(inside), -1))

    steps = sorted({min(groups, k, count) for groups in (*looks, k)})
    most_hits = (most > best.scores[:, -1:]).sum(1).max()
    branch = sum((most_hits > groups).astype(jnp.int32) for groups in (0, *steps[:-1]))
    return jax.lax.switch(
        branch, [lambda kept: kept, *(partial(look, groups) for groups in steps)], best
    )


def _merge(best: Best, scores: Float[Array, "q n"], places: Int[Array, "q n"]) -> Best:
    """The k best of both, the former first among equals."""
    found, order = jax.lax.top_k(
        jnp.concatenate([best.scores, scores], axis=1), best.scores.shape[1]
    )
    chosen = jnp.take_along_axis(jnp.concatenate([best.places, places], axis=1), order, axis=1)
    return Best(found, jnp.where(found == -jnp.inf, -1, chosen))
