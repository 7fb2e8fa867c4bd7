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
from jaxtyping import Array, Float

from e5jax.learner.candidates import Asked, Offered, candidates
from e5jax.mesh import BATCH

Held = tuple[Float[Array, "held d"], Offered]  # passages that a device has at hand, and what is known of them
Saved = tuple[Array, Asked, Held, Array, Array]
S = TypeVar("S")
Sums = TypeVar("Sums", Array, None)
ROWS, ONE_EACH = PartitionSpec(BATCH, None), PartitionSpec(BATCH)
SPREAD, WHOLE = (ROWS, ONE_EACH), (PartitionSpec(None, None), PartitionSpec(None))

_product = partial(jnp.einsum, precision="highest")  # as in `loss`, and for the same reason


def _losses_and_hits(
    queries: Float[Array, "q d"], passages: Float[Array, "p d"], asked: Asked, offered: Offered, block: int, ring: bool
) -> tuple[Float[Array, " q"], Float[Array, " q"]]:
    """Loss of each query, and 1 where its own passage wins; `streamed` is this with its gradient.

    Rows of all arrays are spread over `BATCH`, `offered` only in the ring and else whole. Of equal scores the lowest passage wins.
    """
    return _forward(queries, passages, asked, offered, block, ring)[0]


def _forward(
    queries: Array, passages: Array, asked: Asked, offered: Offered, block: int, ring: bool
) -> tuple[tuple[Array, Array], Saved]:
    with jax.named_scope("gather"):
        held = (passages if ring else reshard(passages, WHOLE[0])), offered
    forward = partial(_score, block=block, ring=ring)
    forward = jax.shard_map(forward, in_specs=(ROWS, ONE_EACH, SPREAD if ring else WHOLE), out_specs=ONE_EACH)
    losses, hits, top, total = forward(queries, asked, held)
    return (losses, hits), (queries, asked, held, top, total)


def _backward(
    block: int, ring: bool, saved: Saved, cotangents: tuple[Array, Array]
) -> tuple[Float[Array, "q d"], Float[Array, "p d"], None, None]:
    backward = partial(_pull_back, block=block, ring=ring)
    specs = (ROWS, ONE_EACH, SPREAD if ring else WHOLE, ONE_EACH, ONE_EACH, ONE_EACH)
    return *jax.shard_map(backward, in_specs=specs, out_specs=ROWS)(*saved, cotangents[0]), None, None


streamed = jax.custom_vjp(_losses_and_hits, nondiff_argnums=(4, 5))
streamed.defvjp(_forward, _backward)


# --- On one device: its queries, and the passages it holds ------------------------------------------------------------


def _score(queries: Float[Array, "q d"], asked: Asked, held: Held, *, block: int, ring: bool) -> tuple[Array, ...]:
    """(loss, hit, highest score, sum of exponentials relative to it), each `[q]`."""
    mine = asked.positive

    def add(state: tuple[Array, ...], part: Held) -> tuple[tuple[Array, ...], None]:
        top, total, own, best = state
        passages, offered = part
        scores = _scores(queries, passages, asked, offered)
        first = offered.number[0]
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
    # Not -inf, which a block without candidates would subtract from itself. Any score is above the lowest number there is.
    start = (zero + jnp.finfo(jnp.float32).min, zero, zero, jnp.full_like(mine, -1))
    (top, total, own, best), _ = _visit(add, start, held, None, block=block, ring=ring)
    # The largest two are subtracted first: their difference is exact where they are close.
    return jnp.log(total) + (top - own), (best == mine).astype(jnp.float32), top, total


def _pull_back(
    queries: Array, asked: Asked, held: Held, top: Array, total: Array, cotangent: Array, *, block: int, ring: bool
) -> tuple[Float[Array, "q d"], Float[Array, "p d"]]:
    """Gradients of the device's queries and of the passages that live on it."""

    def add(gradient: Array, part: Held) -> tuple[Array, Array]:
        passages, offered = part
        scores = _scores(queries, passages, asked, offered)
        # Not exp(score - logsumexp): near 50 float32 rounds a logsumexp by 2e-6, which softmax - one-hot would show.
        share = jnp.exp(scores - top[:, None]) * (cotangent / total)[:, None]
        own = asked.positive[:, None] == offered.number[None]
        share = share - jnp.where(own, cotangent[:, None], 0)
        gradient = gradient + _product("qb,bd->qd", share, passages)
        return gradient, _product("qb,qd->bd", share, queries)

    sums = jax.lax.pcast(jnp.zeros(held[0].shape, jnp.float32), BATCH, to="varying")
    of_queries, of_passages = _visit(add, jnp.zeros_like(queries), held, sums, block=block, ring=ring)
    if not ring:  # every device has a part of the gradient of every passage
        with jax.named_scope("gather"):
            of_passages = jax.lax.psum_scatter(of_passages, BATCH, scatter_dimension=0, tiled=True)
    return of_queries, of_passages


def _scores(queries: Float[Array, "q d"], passages: Float[Array, "b d"], asked: Asked, offered: Offered) -> Float[Array, "q b"]:
    """-inf for what is no candidate: no share of the softmax, no gradient, never the highest."""
    with jax.named_scope("scores"):
        return jnp.where(candidates(asked, offered), _product("qd,bd->qb", queries, passages), -jnp.inf)


def _visit(
    step: Callable[[S, Held], tuple[S, Sums]], state: S, held: Held, sums: Sums, *, block: int, ring: bool
) -> tuple[S, Sums]:
    """Folds `step(state, block of passages)` over all passages of the batch.

    What `step` gives for each passage is added to `sums`, which travels with the passages and is home again at the end.
    """
    count, width = held[0].shape
    turns = jax.lax.axis_size(BATCH) if ring else 1
    size = min(block, count)
    whole = count - count % size  # the rest is a smaller block of its own

    def turn(carry: tuple[S, Held, Sums], _: None) -> tuple[tuple[S, Held, Sums], None]:
        state, held, sums = carry
        blocks = jax.tree.map(lambda x: x[:whole].reshape(-1, size, *x.shape[1:]), held)
        state, found = jax.lax.scan(step, state, blocks)
        found = jax.tree.map(lambda x: x.reshape(whole, width), found)
        if whole < count:
            state, rest = step(state, jax.tree.map(lambda x: x[whole:], held))
            found = jax.tree.map(lambda x, y: jnp.concatenate([x, y]), found, rest)
        sums = jax.tree.map(jnp.add, sums, found)
        if turns > 1:
            onwards = [(device, (device + 1) % turns) for device in range(turns)]
            with jax.named_scope("gather"):
                held, sums = jax.tree.map(lambda x: jax.lax.ppermute(x, BATCH, onwards), (held, sums))
        return (state, held, sums), None

    (state, _, sums), _ = jax.lax.scan(turn, (state, held, sums), length=turns)
    return state, sums
