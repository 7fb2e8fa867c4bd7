"""Scores of pairs without their matrix: blocks of texts pass by, and only what is carried from block to block is kept.

That is, for each pair, a running maximum and the sum of exponentials relative to it (online softmax, arXiv 1805.02867); the
backward pass scores each block again. Texts are gathered first (`ring` False), or stay spread and go once around the devices,
with their gradients in the backward pass (as in ring attention, arXiv 2310.01889).
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec, reshard
from jaxtyping import Array, Float

from e5jax.mesh import BATCH
from e5jax.train.negatives import Anchors, Candidates, MaskRule, mask_scores

Held = tuple[
    Float[Array, "held d"], Candidates
]  # texts that a device has at hand, and what is known of them
Saved = tuple[Array, Array, Anchors, Held, Array, Array]
S = TypeVar("S")
Sums = TypeVar("Sums", Array, None)
ROWS, ONE_EACH = PartitionSpec(BATCH, None), PartitionSpec(BATCH)
SPREAD, WHOLE = (ROWS, ONE_EACH), (PartitionSpec(None, None), PartitionSpec(None))

_product = partial(jnp.einsum, precision="highest")  # as in `loss`, and for the same reason


class DirectionStats(NamedTuple):
    """The negatives of each pair in one direction, beside its own score."""

    negatives: Float[
        Array, " q"
    ]  # log of the sum of exp(score - own score) over them; -inf: it has none
    highest: Float[Array, " q"]  # of their scores, minus its own
    apart: Float[Array, " q"]  # sum of score - own score, where the rule asks for it, else 0
    number: Float[Array, " q"]  # of negatives, as well


class Mode(NamedTuple):
    """How texts pass by, and which of them count."""

    rule: MaskRule
    block: int  # texts scored at a time
    ring: bool

    @property
    def specs(self) -> tuple:
        """Where pairs, their scores, what is known of them, and the texts held are."""
        return ROWS, ONE_EACH, ONE_EACH, SPREAD if self.ring else WHOLE


def _beside(
    asking: Float[Array, "q d"],
    own: Float[Array, " q"],
    vectors: Float[Array, "n d"],
    known: Anchors,
    texts: Candidates,
    mode: Mode,
) -> DirectionStats:
    """One direction; `streamed` is this with its gradient. Rows of all arrays are spread over `BATCH`, `texts` only in the ring."""
    return _forward(asking, own, vectors, known, texts, mode)[0]


def _forward(
    asking: Array, own: Array, vectors: Array, known: Anchors, texts: Candidates, mode: Mode
) -> tuple[DirectionStats, Saved]:
    with jax.named_scope("gather"):
        held = (vectors if mode.ring else reshard(vectors, WHOLE[0])), texts
    forward = jax.shard_map(partial(_score, mode=mode), in_specs=mode.specs, out_specs=ONE_EACH)
    beside, top, total = forward(asking, own, known, held)
    return beside, (asking, own, known, held, top, total)


def _backward(
    mode: Mode, saved: Saved, cotangents: DirectionStats
) -> tuple[Array, Array, Array, None, None]:
    specs = ((*mode.specs, ONE_EACH, ONE_EACH), ONE_EACH)
    backward = jax.shard_map(
        partial(_pull_back, mode=mode), in_specs=specs, out_specs=(ROWS, ONE_EACH, ROWS)
    )
    return *backward(saved, cotangents), None, None


streamed = jax.custom_vjp(_beside, nondiff_argnums=(5,))
streamed.defvjp(_forward, _backward)


# --- On one device: its pairs, and the texts it holds -----------------------------------------------------------------


def _score(
    asking: Float[Array, "q d"], own: Float[Array, " q"], known: Anchors, held: Held, *, mode: Mode
) -> tuple[DirectionStats, Array, Array]:
    """What is asked for, the highest score, and the sum of exponentials relative to it."""
    rule = mode.rule

    def add(state: tuple[Array, ...], part: Held) -> tuple[tuple[Array, ...], None]:
        top, total, apart, count = state
        scores = _scores(asking, known, part, rule)
        new = jnp.maximum(top, jnp.max(scores, axis=-1))
        total = total * jnp.exp(top - new) + jnp.sum(jnp.exp(scores - new[:, None]), axis=-1)
        if rule.smooth:
            found = scores > -jnp.inf
            apart = apart + jnp.sum(jnp.where(found, scores - own[:, None], 0), axis=-1)
            count = count + jnp.sum(found, axis=-1, dtype=jnp.float32)
        return (new, total, apart, count), None

    zero = jnp.zeros_like(own)
    # Not -inf, which a block without negatives would subtract from itself. Any score is above the lowest number there is.
    start = (zero + jnp.finfo(jnp.float32).min, zero, zero, zero)
    (top, total, apart, count), _ = _visit(add, start, held, None, mode)
    # The largest two are subtracted first: their difference is exact where they are close. The log of no negatives is -inf.
    return DirectionStats(jnp.log(total) + (top - own), top - own, apart, count), top, total


def _pull_back(
    saved: Saved, cotangents: DirectionStats, *, mode: Mode
) -> tuple[Float[Array, "q d"], Float[Array, " q"], Float[Array, "n d"]]:
    """Gradients of the device's pairs, of their own scores, and of the texts that live on it."""
    asking, own, known, held, top, total = saved
    weight = jnp.where(total != 0, cotangents.negatives / jnp.where(total != 0, total, 1), 0)

    def add(state: tuple[Array, Array], part: Held) -> tuple[tuple[Array, Array], Array]:
        scores = _scores(asking, known, part, mode.rule)
        # Not exp(score - log of the sum): near 50 float32 rounds a log of a sum by 2e-6.
        share = jnp.exp(scores - top[:, None]) * weight[:, None]
        if mode.rule.smooth:
            share = share + jnp.where(scores > -jnp.inf, cotangents.apart[:, None], 0)
        gradient, shares = state
        state = gradient + _product("qb,bd->qd", share, part[0]), shares + jnp.sum(share, axis=-1)
        return state, _product("qb,qd->bd", share, asking)

    sums = jax.lax.pcast(jnp.zeros(held[0].shape, jnp.float32), BATCH, to="varying")
    (of_asking, shares), of_texts = _visit(
        add, (jnp.zeros_like(asking), jnp.zeros_like(own)), held, sums, mode
    )
    if not mode.ring:  # every device has a part of the gradient of every text
        with jax.named_scope("gather"):
            of_texts = jax.lax.psum_scatter(of_texts, BATCH, scatter_dimension=0, tiled=True)
    return of_asking, -shares, of_texts


def _scores(
    asking: Float[Array, "q d"], known: Anchors, part: Held, rule: MaskRule
) -> Float[Array, "q b"]:
    """-inf for what is no negative: no share of the softmax, no gradient, never the highest."""
    vectors, texts = part
    with jax.named_scope("scores"):
        return mask_scores(_product("qd,bd->qb", asking, vectors), known, texts, rule)


def _visit(
    step: Callable[[S, Held], tuple[S, Sums]], state: S, held: Held, sums: Sums, mode: Mode
) -> tuple[S, Sums]:
    """Folds `step(state, block of texts)` over all texts.

    What `step` gives for each text is added to `sums`, which travels with the texts and is home again at the end.
    """
    count, width = held[0].shape
    turns = jax.lax.axis_size(BATCH) if mode.ring else 1
    size = min(mode.block, count)
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
                held, sums = jax.tree.map(
                    lambda x: jax.lax.ppermute(x, BATCH, onwards), (held, sums)
                )
        return (state, held, sums), None

    (state, _, sums), _ = jax.lax.scan(turn, (state, held, sums), length=turns)
    return state, sums
