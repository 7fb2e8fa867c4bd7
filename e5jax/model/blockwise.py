"""Attention by blocks with an online softmax, in plain JAX: memory grows linearly with the row, work with what is seen.

The forward pass and its gradient follow FlashAttention-2 (arXiv 2307.08691). Rows and query blocks are taken one after
the other, so that all of a block stays in a CPU's cache; the query heads that share a key head are one product. A query
block visits the key blocks from the first that holds anything of its texts, or of its window, to its own, or to the last
such one where attention is not causal, and those of the tokens that all texts of a row share, and no other.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float, Int

from e5jax.data.packing import SHARED

HIDDEN = (
    -1e30
)  # score of a key that is not seen; finite, so that a block with nothing in sight gives no NaN
BEYOND = jnp.iinfo(jnp.int32).max  # segment of what fills a row up to whole blocks

Found = TypeVar("Found")


class Tiles(NamedTuple):
    """What is static."""

    block: int  # tokens
    window: int | None
    shared: int  # key blocks at the start of a row that hold tokens which every text sees
    causal: bool


class Queries(NamedTuple):
    """A row's query blocks, `c` of them; `g` query heads a key head lie one behind the other."""

    number: Int[Array, " c"]
    first: Int[Array, " c"]  # the first key block that the block needs
    last: Int[Array, " c"]
    segments: Int[Array, "c t"]
    q: Float[Array, "c k g·t e"]


class Keys(NamedTuple):
    """A row's key blocks."""

    segments: Int[Array, "c t"]
    k: Float[Array, "c k t e"]
    v: Float[Array, "c k t e"]


def attend(
    q: Float[Array, "n t h e"],
    k: Float[Array, "n t k e"],
    v: Float[Array, "n t k e"],
    segments: Int[Array, "n t"],
    window: int | None,
    shared: int = 0,
    causal: bool = True,
) -> Float[Array, "n t h e"]:
    """Softmax attention on one device; any length. Scores, statistics and sums are float32."""
    length = q.shape[1]
    block = _block(length)
    tiles = Tiles(block, window, -(-shared // block), causal)
    fill = (0, -length % tiles.block)
    q, k, v = (jnp.pad(x, ((0, 0), fill, (0, 0), (0, 0))) for x in (q, k, v))
    segments = jnp.pad(segments, ((0, 0), fill), constant_values=BEYOND)
    return jax.lax.slice_in_dim(_attend(tiles, q, k, v, segments), 0, length, axis=1)


def _block(length: int) -> int:
    """Small blocks compute little that short texts mask; larger ones spend less on loops (benchmarks/attention.py)."""
    return 32 if length <= 256 else 64


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _attend(tiles: Tiles, q: Array, k: Array, v: Array, segments: Array) -> Array:
    return _forward(tiles, q, k, v, segments)[0]


def _forward(
    tiles: Tiles, q: Array, k: Array, v: Array, segments: Array
) -> tuple[Array, tuple[Array, ...]]:
    out, normaliser = jax.lax.map(lambda row: _forward_row(tiles, *row), (q, k, v, segments))
    # With these two kept, the backward pass need not run the forward one again.
    out, normaliser = checkpoint_name(out, "mixed"), checkpoint_name(normaliser, "normaliser")
    return out, (q, k, v, segments, out, normaliser)


def _backward(
    tiles: Tiles, kept: tuple[Array, ...], slope: Array
) -> tuple[Array, Array, Array, None]:
    return *jax.lax.map(lambda row: _backward_row(tiles, *row), (*kept, slope)), None


_attend.defvjp(_forward, _backward)


def _forward_row(
    tiles: Tiles, q: Array, k: Array, v: Array, segments: Array
) -> tuple[Array, Array]:
    """`[t h e]` and the logarithm of each softmax's denominator `[c k g·t]`."""
    queries, keys = _cut(tiles, q, k, v, segments)

    def query_block(_: None, block: Queries) -> tuple[None, tuple[Array, Array]]:
        def key_block(j: Array, found: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
            top, total, out = found
            key = _at(keys, j)
            scores = _scores(tiles, block, key, j)
            new = jnp.maximum(top, jnp.max(scores, axis=-1))
            # Where nothing has been seen yet these are ones; the first score that counts shrinks them to exact zeros.
            weights = jnp.exp(scores - new[..., None])
            shrink = jnp.exp(top - new)
            gained = _product("kqc,kce->kqe", weights.astype(v.dtype), key.v)
            return new, total * shrink + jnp.sum(weights, axis=-1), out * shrink[..., None] + gained

        shape = block.q.shape
        start = jnp.full(shape[:-1], HIDDEN), jnp.zeros(shape[:-1]), jnp.zeros(shape)
        top, total, out = _visit(tiles, block, key_block, start)
        return None, ((out / total[..., None]).astype(q.dtype), top + jnp.log(total))

    _, (out, normaliser) = jax.lax.scan(query_block, None, queries)
    return _join_queries(out, q.shape), normaliser


def _backward_row(
    tiles: Tiles,
    q: Array,
    k: Array,
    v: Array,
    segments: Array,
    out: Array,
    normaliser: Array,
    slope: Array,
) -> tuple[Array, Array, Array]:
    """Gradients of q, k and v, given `slope`, that of the output."""
    queries, keys = _cut(tiles, q, k, v, segments)
    slopes, outs = (_cut_queries(x, k.shape[1], tiles.block) for x in (slope, out))
    means = jnp.sum(outs.astype(jnp.float32) * slopes.astype(jnp.float32), axis=-1)
    scale = q.shape[-1] ** -0.5

    def query_block(
        sums: tuple[Array, Array], given: tuple[Queries, Array, Array, Array]
    ) -> tuple[tuple[Array, Array], Array]:
        block, normaliser, slope, mean = given

        def key_block(j: Array, found: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
            for_q, for_k, for_v = found
            key = _at(keys, j)
            weights = jnp.exp(_scores(tiles, block, key, j) - normaliser[..., None])
            of_weights = _product("kqe,kce->kqc", slope, key.v)
            of_scores = (weights * (of_weights - mean[..., None]) * scale).astype(q.dtype)
            for_v = _add(for_v, j, _product("kqc,kqe->kce", weights.astype(q.dtype), slope))
            for_k = _add(for_k, j, _product("kqc,kqe->kce", of_scores, block.q))
            return for_q + _product("kqc,kce->kqe", of_scores, key.k), for_k, for_v

        start = (jnp.zeros(block.q.shape), *sums)
        for_q, for_k, for_v = _visit(tiles, block, key_block, start)
        return (for_k, for_v), for_q.astype(q.dtype)

    start = (jnp.zeros(keys.k.shape), jnp.zeros(keys.v.shape))
    (for_k, for_v), for_q = jax.lax.scan(query_block, start, (queries, normaliser, slopes, means))
    for_k, for_v = (x.astype(k.dtype).swapaxes(1, 2).reshape(k.shape) for x in (for_k, for_v))
    return _join_queries(for_q, q.shape), for_k, for_v


def _cut(tiles: Tiles, q: Array, k: Array, v: Array, segments: Array) -> tuple[Queries, Keys]:
    heads = k.shape[1]
    keys, values = (x.reshape(-1, tiles.block, *x.shape[1:]).swapaxes(1, 2) for x in (k, v))
    segments = segments.reshape(-1, tiles.block)
    number = jnp.arange(segments.shape[0])
    first, last = _reach(tiles, segments)
    queries = Queries(number, first, last, segments, _cut_queries(q, heads, tiles.block))
    return queries, Keys(segments, keys, values)


def _cut_queries(x: Array, heads: int, block: int) -> Array:
    """`[t h e]` -> `[c k g·t e]`."""
    grouped = x.reshape(-1, block, heads, x.shape[1] // heads, x.shape[2]).transpose(0, 2, 3, 1, 4)
    return grouped.reshape(grouped.shape[0], heads, -1, x.shape[2])


def _join_queries(x: Array, shape: tuple[int, ...]) -> Array:
    """`[c k g·t e]` -> `[t h e]`."""
    blocks, heads, e = x.shape[0], x.shape[1], x.shape[3]
    return (
        x.reshape(blocks, heads, shape[1] // heads, -1, e).transpose(0, 3, 1, 2, 4).reshape(shape)
    )


def _visit(
    tiles: Tiles, block: Queries, key_block: Callable[[Array, Found], Found], start: Found
) -> Found:
    """Calls `key_block` with every key block that the query block needs, and what the call before it found."""
    if not tiles.shared:
        return jax.lax.fori_loop(block.first, block.last + 1, key_block, start)
    # Between those that are shared and the first of the block's own texts there may be others.
    shared = jnp.minimum(tiles.shared, block.number + 1)
    skipped = jnp.maximum(block.first, tiles.shared) - shared

    def shifted(i: Array, found: Found) -> Found:
        return key_block(jnp.where(i < shared, i, i + skipped), found)

    return jax.lax.fori_loop(0, jnp.maximum(shared, block.number + 1 - skipped), shifted, start)


def _reach(tiles: Tiles, segments: Int[Array, "c t"]) -> tuple[Int[Array, " c"], Int[Array, " c"]]:
    """The first and the last key block whose range of segments meets that of the query block, and that the window reaches."""
    # Padding follows a row's texts, so it counts as a late segment: ranges of numbers then stay tight.
    numbers = jnp.where(segments == 0, BEYOND - 1, segments)
    low, high = jnp.min(numbers, axis=1), jnp.max(numbers, axis=1)
    meets = (high[:, None] >= low[None, :]) & (low[:, None] <= high[None, :])
    own, first = jnp.arange(len(meets)), jnp.argmax(meets, axis=1)
    last = own if tiles.causal else len(meets) - 1 - jnp.argmax(meets[:, ::-1], axis=1)
    if tiles.window is None:
        return first, last
    reach = -(-(tiles.window - 1) // tiles.block)  # blocks
    return jnp.maximum(first, own - reach), jnp.minimum(last, own + reach)


def _scores(tiles: Tiles, block: Queries, key: Keys, j: Array) -> Float[Array, "k g·t t"]:
    """Scaled scores of a query block against key block j, `HIDDEN` where a query does not see a key."""
    scores = _product("kqe,kce->kqc", block.q, key.k) * block.q.shape[-1] ** -0.5
    here = jnp.arange(tiles.block)
    distance = (block.number - j) * tiles.block + here[:, None] - here[None, :]
    same = block.segments[:, None] == key.segments[None, :]
    if tiles.shared:
        same |= (key.segments == SHARED)[None, :]
    if not tiles.causal:
        distance = jnp.abs(distance)
    seen = (distance >= 0) & same
    if tiles.window is not None:
        seen &= distance < tiles.window
    heads = scores.reshape(scores.shape[0], -1, tiles.block, tiles.block)
    return jnp.where(seen[None, None], heads, HIDDEN).reshape(scores.shape)


def _at(keys: Keys, j: Array) -> Keys:
    return jax.tree.map(lambda x: jax.lax.dynamic_index_in_dim(x, j, keepdims=False), keys)


def _add(sums: Array, j: Array, more: Array) -> Array:
    """`sums.at[j].add(more)`, which would be a scatter."""
    old = jax.lax.dynamic_index_in_dim(sums, j, keepdims=False)
    return jax.lax.dynamic_update_index_in_dim(sums, old + more, j, 0)


def _product(letters: str, x: Array, y: Array) -> Array:
    return jnp.einsum(letters, x, y, preferred_element_type=jnp.float32)
