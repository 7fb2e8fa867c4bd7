"""InfoNCE with in-batch documents and hard negatives (arXiv 2401.00368, eq. 2 and 3).

`dense` holds the scores of a device's queries against all passages; `chunked` and `ring` are in `stream`.
"""

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec, reshard
from jaxtyping import Array, Float

from e5jax.config import Loss
from e5jax.learner.candidates import Asked, Offered, Terms, candidates, sides
from e5jax.learner.stream import streamed
from e5jax.mesh import BATCH


def infonce(
    queries: Float[Array, "q d"], passages: Float[Array, "p d"], terms: Terms, loss: Loss
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Mean loss and accuracy; query i belongs to passage i · p / q, its other candidates in the global batch are its negatives.

    Vectors have unit length, float32; rows of all arrays are spread over `BATCH`; q divides p, and both divide over the devices.
    Accuracy is the share of queries that score their own passage highest; of equal scores the first counts.
    """
    scaled = queries / terms.temperatures[:, None]  # d divisions a query instead of p
    ring = loss.scores == "ring"
    asked, offered = sides(terms, PartitionSpec(BATCH) if ring else PartitionSpec(None))
    if loss.scores == "dense":
        losses, hits = _dense(scaled, passages, asked, offered)
    else:
        losses, hits = streamed(scaled, passages, asked, offered, loss.block, ring)
    return jnp.mean(losses), jnp.mean(hits)


def _dense(
    queries: Float[Array, "q d"], passages: Float[Array, "p d"], asked: Asked, offered: Offered
) -> tuple[Float[Array, " q"], Float[Array, " q"]]:
    """Loss of each query, and 1 where its own passage wins. No score leaves its device."""
    with jax.named_scope("gather"):
        whole = reshard(passages, PartitionSpec(None, None))
    spread = PartitionSpec(BATCH, None)
    # HIGHEST: by default TPUs and GPUs round the factors to bfloat16 or TF32, and 1 / temperature lifts the error.
    with jax.named_scope("scores"):
        scores = jnp.einsum("qd,pd->qp", queries, whole, precision="highest", out_sharding=spread)
        scores = jnp.where(candidates(asked, offered), scores, -jnp.inf)
    each = passages.shape[0] // queries.shape[0]
    by_query = jax.lax.reshape(passages, (queries.shape[0], each, passages.shape[1]), out_sharding=PartitionSpec(BATCH, None, None))
    own = jnp.sum(queries * by_query[:, 0], axis=-1)
    hits = jnp.argmax(scores, axis=-1) == asked.positive
    return jax.nn.logsumexp(scores, axis=-1) - own, hits.astype(jnp.float32)
