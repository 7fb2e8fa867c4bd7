"""InfoNCE without its score matrix: blocks of passages pass by, and only what is carried from block to block is kept.

That is, for each query, a running maximum, the sum of exponentials relative to it, the own score and the winner (online
softmax, arXiv 1805.02867); the backward pass scores each block again. Passages are gathered first (`ring` False), or stay
spread and go once around the devices, with their gradients in the backward pass (as in ring attention, arXiv 2310.01889).
"""

from collections.abc import Callable
from functools import partial
from typing import TypeVar

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec, reshard
from jaxtyping import Array, Float, Int

from e5jax.mesh import BATCH

S = TypeVar("S")
Sums = TypeVar("Sums", Array, None)
SPREAD, WHOLE, ONE_EACH = PartitionSpec(BATCH, None), PartitionSpec(None, None), PartitionSpec(BATCH)

_product = partial(jnp.einsum, precision="highest")  # as in `loss`, and for the same reason


def _losses_and_hits(
    queries: Float[Array, "q d"], passages: Float[Array, "p d"], block: int, ring: bool
) -> tuple[Float[Array, " q"], Float[Array, " q"]]:
    """Loss of each query, and 1 where its own passage wins; `streamed` is this with its gradient.

    Rows of both are spread over `BATCH`, query i belongs to passage i · p / q. Of equal scores the lowest passage wins.
    """
    return _forward(queries, passages, block, ring)[0]


def _forward(queries: Array, passages: Array, block: int, ring: bool) -> tuple[tuple[Array, Array], tuple[Array, ...]]:
    with jax.named_scope("gather"):
        seen = passages if ring else reshard(passages, WHOLE)
    forward = partial(_score, each=_each(queries, passages), block=block, ring=ring)
    forward = jax.shard_map(forward, in_specs=(SPREAD, SPREAD if ring else WHOLE), out_specs=ONE_EACH)
    losses, hits, top, total = forward(queries, seen)
    return (losses, hits), (queries, seen, top, total)


def _backward(
    block: int, ring: bool, saved: tuple[Array, ...], cotangents: tuple[Array, Array]
) -> tuple[Float[Array, "q d"], Float[Array, "p d"]]:
    queries, seen, top, total = saved
    backward = partial(_pull_back, each=_each(queries, seen), block=block, ring=ring)
    specs = (SPREAD, SPREAD if ring else WHOLE, ONE_EACH, ONE_EACH, ONE_EACH)
    return jax.shard_map(backward, in_specs=specs, out_specs=SPREAD)(queries, seen, top, total, cotangents[0])


streamed = jax.custom_vjp(_losses_and_hits, nondiff_argnums=(2, 3))
streamed.defvjp(_forward, _backward)


# --- On one device: its queries, and the passages it holds ------------------------------------------------------------


def _score(
    queries: Float[Array, "q d"], passages: Float[Array, "held d"], *, each: int, block: int, ring: bool
) -> tuple[Array, ...]:
    """(loss, hit, highest score, sum of exponentials relative to it), each `[q]`."""
    mine = _own(queries, each)

    def add(state: tuple[Array, ...], part: tuple[Array, Array]) -> tuple[tuple[Array, ...], None]:
        top, total, own, best = state
        passages, first = part
        with jax.named_scope("scores"):
            scores = _product("qd,bd->qb", queries, passages)
        highest, winner = jnp.max(scores, axis=-1), first + jnp.argmax(scores, axis=-1)
        new = jnp.maximum(top, highest)
        total = total * jnp.exp(top - new) + jnp.sum(jnp.exp(scores - new[:, None]), axis=-1)
        place = jnp.clip(mine - first, 0, len(passages) - 1)
        here = jnp.take_along_axis(scores, place[:, None], axis=-1)[:, 0]
        own = jnp.where(place == mine - first, here, own)
        # Blocks come in any order: of equal scores the lowest number wins, as in argmax.
        wins = (highest > top) | ((highest == top) & (winner < best))
        return (new, total, own, jnp.where(wins, winner, best)), None

    zero = jnp.zeros_like(mine, jnp.float32)
    start = (zero - jnp.inf, zero, zero, jnp.full_like(mine, -1))
    (top, total, own, best), _ = _visit(add, start, passages, None, block=block, ring=ring)
    # The largest two are subtracted first: their difference is exact where they are close.
    return jnp.log(total) + (top - own), (best == mine).astype(jnp.float32), top, total


def _pull_back(
    queries: Array, passages: Array, top: Array, total: Array, cotangent: Array, *, each: int, block: int, ring: bool
) -> tuple[Float[Array, "q d"], Float[Array, "p d"]]:
    """Gradients of the device's queries and of the passages that live on it."""
    mine = _own(queries, each)

    def add(gradient: Array, part: tuple[Array, Array]) -> tuple[Array, Array]:
        passages, first = part
        with jax.named_scope("scores"):
            scores = _product("qd,bd->qb", queries, passages)
        # Not exp(score - logsumexp): near 50 float32 rounds a logsumexp by 2e-6, which softmax - one-hot would show.
        share = jnp.exp(scores - top[:, None]) * (cotangent / total)[:, None]
        own = (mine - first)[:, None] == jnp.arange(len(passages))[None]
        share = share - jnp.where(own, cotangent[:, None], 0)
        gradient = gradient + _product("qb,bd->qd", share, passages)
        return gradient, _product("qb,qd->bd", share, queries)

    sums = jax.lax.pcast(jnp.zeros(passages.shape, jnp.float32), BATCH, to="varying")
    of_queries, of_passages = _visit(add, jnp.zeros_like(queries), passages, sums, block=block, ring=ring)
    if not ring:  # every device has a part of the gradient of every passage
        with jax.named_scope("gather"):
            of_passages = jax.lax.psum_scatter(of_passages, BATCH, scatter_dimension=0, tiled=True)
    return of_queries, of_passages


def _visit(
    step: Callable[[S, tuple[Array, Array]], tuple[S, Sums]],
    state: S,
    passages: Float[Array, "held d"],
    sums: Sums,
    *,
    block: int,
    ring: bool,
) -> tuple[S, Sums]:
    """Folds `step(state, (block of passages, number of its first))` over all passages of the batch.

    What `step` gives for each passage is added to `sums`, which travels with the passages and is home again at the end.
    """
    held, width = passages.shape
    turns = jax.lax.axis_size(BATCH) if ring else 1
    size = min(block, held)
    whole = held - held % size  # the rest is a smaller block of its own

    def turn(carry: tuple[S, Array, Sums], number: Array) -> tuple[tuple[S, Array, Sums], None]:
        state, passages, sums = carry
        first = (jax.lax.axis_index(BATCH) - number) % turns * held
        blocks = passages[:whole].reshape(-1, size, width), first + jnp.arange(0, whole, size)
        state, found = jax.lax.scan(step, state, blocks)
        found = jax.tree.map(lambda x: x.reshape(whole, width), found)
        if whole < held:
            state, rest = step(state, (passages[whole:], first + whole))
            found = jax.tree.map(lambda x, y: jnp.concatenate([x, y]), found, rest)
        sums = jax.tree.map(jnp.add, sums, found)
        if turns > 1:
            onwards = [(device, (device + 1) % turns) for device in range(turns)]
            with jax.named_scope("gather"):
                passages, sums = jax.tree.map(lambda x: jax.lax.ppermute(x, BATCH, onwards), (passages, sums))
        return (state, passages, sums), None

    (state, _, sums), _ = jax.lax.scan(turn, (state, passages, sums), jnp.arange(turns))
    return state, sums


def _each(queries: Array, passages: Array) -> int:
    """Passages a query, its own the first of them."""
    return passages.shape[0] // queries.shape[0]


def _own(queries: Array, each: int) -> Int[Array, " q"]:
    """The numbers, in the global batch, of the own passages of this device's queries."""
    count = queries.shape[0]
    return each * (jax.lax.axis_index(BATCH) * count + jnp.arange(count))
