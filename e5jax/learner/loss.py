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
    scores = jnp.einsum("qd,pd->qp", queries, passages, out_sharding=PartitionSpec(BATCH, None)) / temperature
    own = jnp.sum(queries * _first(passages, queries), axis=-1) / temperature
    loss = jnp.mean(jax.nn.logsumexp(scores, axis=-1) - own)
    accuracy = jnp.mean((own >= jnp.max(scores, axis=-1) - 1e-6).astype(jnp.float32))
    return loss, accuracy


def _first(passages: Array, queries: Array) -> Array:
    """The positives, placed like the queries."""
    return jax.sharding.reshard(passages[: queries.shape[0]], jax.typeof(queries).sharding.spec)
