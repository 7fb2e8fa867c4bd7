"""InfoNCE with in-batch documents and hard negatives (arXiv 2401.00368, eq. 2 and 3)."""

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
from jaxtyping import Array, Float

from e5jax.mesh import BATCH


def infonce(
    queries: Float[Array, "q d"], passages: Float[Array, "p d"], temperature: float
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Mean loss and accuracy; query i belongs to passage i, every other passage of the global batch is its negative.

    Vectors have unit length, float32. Queries are spread over devices, passages are whole on each, so every device
    scores its queries against all passages and no score matrix is ever moved.
    """
    # HIGHEST: by default TPUs and GPUs round the factors to bfloat16 or TF32, and 1 / temperature lifts the error.
    scores = jnp.einsum("qd,pd->qp", queries, passages, precision="highest", out_sharding=PartitionSpec(BATCH, None)) / temperature
    own = jnp.sum(queries * _like(passages[: queries.shape[0]], queries), axis=-1) / temperature
    loss = jnp.mean(jax.nn.logsumexp(scores, axis=-1) - own)
    best = jnp.argmax(scores, axis=-1)
    accuracy = jnp.mean((best == _like(jnp.arange(best.shape[0]), best)).astype(jnp.float32))
    return loss, accuracy


def _like(x: Array, other: Array) -> Array:
    """`x` placed like `other`."""
    return jax.sharding.reshard(x, jax.typeof(other).sharding.spec)
