"""The contrastive objective: InfoNCE (arXiv 2401.00368, eq. 2) and what other recipes make of it (docs/objective.md).

A query and a positive of it are a pair. In every direction a pair has one number: the log of the sum of `exp(score - own score)`
over its negatives. The pair itself, 1 in that sum, is added at the end, so that nothing large is subtracted from anything large.
`dense` holds the scores of a device's pairs against all texts at once; `chunked` and `ring` are in `stream`.
"""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec, reshard
from jaxtyping import Array, Float

from e5jax.config import Loss
from e5jax.mesh import BATCH
from e5jax.model.pooling import unit
from e5jax.train.negatives import (
    Anchors,
    BatchInfo,
    Candidates,
    MaskRule,
    anchors_of,
    candidates_of,
    flatten,
    mask_rule,
    mask_scores,
    repeat,
    split,
    weights,
)
from e5jax.train.streaming_loss import DirectionStats, Mode, streamed

OWN = ("query_to_doc", "doc_to_query")  # directions in which a pair meets itself
SPREAD, WHOLE = PartitionSpec(BATCH), PartitionSpec(None)


class Side(NamedTuple):
    """Texts that pairs are scored against."""

    vectors: Float[Array, "n d"]
    known: Candidates


def contrast(
    queries: Float[Array, "q d"],
    passages: Float[Array, "p d"],
    terms: BatchInfo,
    loss: Loss,
    positives: int = 1,
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Mean loss and accuracy of whole vectors, or the weighted sum over prefixes (arXiv 2205.13147) and that of the longest.

    Arguments are those of `infonce`; every prefix gets unit length again.
    """
    if not loss.dimensions:
        return infonce(queries, passages, terms, loss, positives)
    total, accuracies = jnp.zeros(()), {}
    for length, weight in zip(
        loss.dimensions, loss.weights or [1.0] * len(loss.dimensions), strict=True
    ):
        found, accuracies[length] = infonce(
            unit(queries[:, :length]), unit(passages[:, :length]), terms, loss, positives
        )
        total = total + weight * found
    return total, accuracies[max(accuracies)]


def infonce(
    queries: Float[Array, "q d"],
    passages: Float[Array, "p d"],
    terms: BatchInfo,
    loss: Loss,
    positives: int = 1,
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Mean loss and accuracy; query i brought p / q passages, from number i · p / q on: `positives`, then hard negatives.

    Vectors have unit length, float32; rows of all arrays are spread over `BATCH`; q divides p, and both divide over the devices.
    Accuracy is the share of pairs that score above all that they are contrasted with. The pairs of a query are one together.
    """
    found = flatten(split(passages, len(queries))[:, :positives])
    asking = {
        "query": repeat(queries / terms.temperatures[:, None], positives)
    }  # d divisions a query instead of p
    own = jnp.sum(asking["query"] * found, axis=-1)
    asking["doc"] = found / repeat(terms.temperatures, positives)[:, None]
    known = anchors_of(terms, own, loss, positives)
    of_passages, of_queries = candidates_of(
        terms, SPREAD if loss.scores == "ring" else WHOLE, positives
    )
    asked = {"doc": Side(passages, of_passages), "query": Side(queries, of_queries)}
    beside = {}
    for way in loss.directions:
        of, to = way.split("_to_")
        beside[way] = _beside(
            asking[of], own, asked[to], known, mask_rule(loss, own=way == "query_to_doc"), loss
        )
    hits = beside["query_to_doc"].highest < 0
    each = weights(terms, positives)
    return jnp.sum(each * _together(beside, loss)) / len(queries), jnp.sum(each * hits) / len(
        queries
    )


def _beside(
    asking: Array, own: Array, asked: Side, known: Anchors, rule: MaskRule, loss: Loss
) -> DirectionStats:
    if loss.scores == "dense":
        return _dense(asking, own, asked, known, rule)
    return streamed(
        asking,
        own,
        asked.vectors,
        known,
        asked.known,
        Mode(rule, loss.block, loss.scores == "ring"),
    )


def _dense(
    asking: Float[Array, "q d"],
    own: Float[Array, " q"],
    asked: Side,
    known: Anchors,
    rule: MaskRule,
) -> DirectionStats:
    """No score leaves its device."""
    with jax.named_scope("gather"):
        whole = reshard(asked.vectors, PartitionSpec(None, None))
    # HIGHEST: by default TPUs and GPUs round the factors to bfloat16 or TF32, and 1 / temperature lifts the error.
    with jax.named_scope("scores"):
        scores = jnp.einsum(
            "qd,nd->qn", asking, whole, precision="highest", out_sharding=PartitionSpec(BATCH, None)
        )
        scores = mask_scores(scores, known, asked.known, rule)
    top = jax.lax.stop_gradient(jnp.max(scores, axis=-1, initial=jnp.finfo(jnp.float32).min))
    total = jnp.sum(jnp.exp(scores - top[:, None]), axis=-1)
    some = total != 0  # what is no number stays none
    negatives = jnp.where(some, jnp.log(jnp.where(some, total, 1)) + (top - own), -jnp.inf)
    if not rule.smooth:
        return DirectionStats(negatives, top - own, jnp.zeros_like(own), jnp.zeros_like(own))
    found = scores > -jnp.inf
    apart = jnp.sum(jnp.where(found, scores - own[:, None], 0), axis=-1)
    return DirectionStats(negatives, top - own, apart, jnp.sum(found, axis=-1, dtype=jnp.float32))


def _together(beside: Mapping[str, DirectionStats], loss: Loss) -> Float[Array, " q"]:
    """The loss of each pair: one softmax over all directions, or the mean of one for each."""
    if loss.partition == "joint":
        itself = sum(way in OWN for way in beside)
        parts = jnp.stack(
            [
                jnp.full_like(beside["query_to_doc"].negatives, jnp.log(itself)),
                *(one.negatives for one in beside.values()),
            ]
        )
        return jax.nn.logsumexp(parts, axis=0) - _smoothing(list(beside.values()), itself, loss)
    apart = [
        jnp.logaddexp(one.negatives, 0) - _smoothing([one], 1, loss) for one in beside.values()
    ]
    return jnp.mean(jnp.stack(apart), axis=0)


def _smoothing(beside: list[DirectionStats], itself: int, loss: Loss) -> Float[Array, " q"] | float:
    """What is taken off when `smoothing` of the target is spread over all candidates (arXiv 1512.00567)."""
    if not loss.smoothing:
        return 0.0
    apart, count = sum(one.apart for one in beside), itself + sum(one.number for one in beside)
    return loss.smoothing * apart / count
