"""InfoNCE with in-batch documents and hard negatives (arXiv 2401.00368, eq. 2 and 3)."""

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec, reshard
from jaxtyping import Array, Float

from e5jax.mesh import BATCH


def infonce(
    queries: Float[Array, "q d"], passages: Float[Array, "p d"], temperature: float
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Mean loss and accuracy; every query scores all passages of the global batch.

    The own passage of query i is the first of its p / q passages: number i · p / q. Vectors have unit length, float32, and
    are spread over the devices. Passages are gathered, queries stay, so no score matrix is ever moved.
    """
    each = passages.shape[0] // queries.shape[0]
    positives = jax.lax.reshape(passages, (queries.shape[0], each, queries.shape[1]), out_sharding=PartitionSpec(BATCH, None, None))
    whole = reshard(passages, PartitionSpec(None, None))
    # HIGHEST: by default TPUs and GPUs round the factors to bfloat16 or TF32, and 1 / temperature lifts the error.
    scores = jnp.einsum("qd,pd->qp", queries, whole, precision="highest", out_sharding=PartitionSpec(BATCH, None)) / temperature
    own = jnp.sum(queries * positives[:, 0], axis=-1) / temperature
    loss = jnp.mean(jax.nn.logsumexp(scores, axis=-1) - own)
    best = jnp.argmax(scores, axis=-1)
    right = best == reshard(each * jnp.arange(best.shape[0]), jax.typeof(best).sharding.spec)
    return loss, jnp.mean(right.astype(jnp.float32))
