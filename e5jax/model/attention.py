"""Grouped-query causal attention inside each text of a row, with an optional sliding window."""

import jax
import jax.numpy as jnp
from flax import nnx
from jax.ad_checkpoint import checkpoint_name
from jax.sharding import PartitionSpec, reshard
from jaxtyping import Array, Bool, Float, Int, UInt32

from e5jax.config import Kernel
from e5jax.mesh import BATCH
from e5jax.model.dense import Dense, Lora
from e5jax.model.norm import rotate
from e5jax.model.spec import Spec

HEADS = PartitionSpec(BATCH, None, "tensor", None)


def visible(segments: Int[Array, "n t"], window: int | None) -> Bool[Array, "n 1 t t"]:
    """Which key each query token sees: its own text, not the future, and within the window.

    The window counts as in transformers' Mistral: a token sees itself and the window - 1 tokens before it.
    Padding (segment 0) sees padding, so that no row of the softmax is empty.
    """
    here = jnp.arange(segments.shape[1])
    distance = here[:, None] - here[None, :]
    allowed = distance >= 0
    if window is not None:
        allowed &= distance < window
    return (allowed[None] & (segments[:, :, None] == segments[:, None, :]))[:, None]


def attend(
    q: Float[Array, "n t h e"],
    k: Float[Array, "n t k e"],
    v: Float[Array, "n t k e"],
    segments: Int[Array, "n t"],
    window: int | None,
    kernel: Kernel,
) -> Float[Array, "n t h e"]:
    """Softmax attention, scores in float32.

    `xla` runs everywhere. `cudnn` is NVIDIA's fused kernel: half precision, one text a row, no window
    (`validate.check_window` refuses a window that would mask anything). Tests lower it for CUDA; it has not run on a GPU yet.
    """
    if kernel == "xla":
        if k.shape[2] == 1:  # `tensor` is 1 then; jax's grouping of heads would expect its name on the single head
            q, k, v = (reshard(x, PartitionSpec(BATCH, None, None, None)) for x in (q, k, v))
        return reshard(jax.nn.dot_product_attention(q, k, v, mask=visible(segments, window), implementation="xla"), HEADS)

    def fused(q: Array, k: Array, v: Array, lengths: Array) -> Array:
        return jax.nn.dot_product_attention(
            q, k, v, is_causal=True, query_seq_lengths=lengths, key_value_seq_lengths=lengths, implementation="cudnn"
        )

    lengths = jnp.sum(segments > 0, axis=1, dtype=jnp.int32)
    specs = (HEADS, HEADS, HEADS, PartitionSpec(BATCH))
    return jax.shard_map(fused, in_specs=specs, out_specs=HEADS, check_vma=False)(q, k, v, lengths)


class Attention(nnx.Module):
    """The attention block of `layers` stacked layers."""

    def __init__(self, spec: Spec, lora: dict[str, Lora], kernel: Kernel, *, rngs: nnx.Rngs):
        wide, narrow = spec.heads * spec.head_size, spec.kv_heads * spec.head_size
        self.q = Dense("q", spec.layers, ("embed", "heads"), (spec.hidden, wide), lora.get("q"), rngs=rngs)
        self.k = Dense("k", spec.layers, ("embed", "kv"), (spec.hidden, narrow), lora.get("k"), rngs=rngs)
        self.v = Dense("v", spec.layers, ("embed", "kv"), (spec.hidden, narrow), lora.get("v"), rngs=rngs)
        self.o = Dense("o", spec.layers, ("heads", "embed"), (wide, spec.hidden), lora.get("o"), rngs=rngs)
        self.spec = spec
        self.kernel: Kernel = kernel

    def __call__(
        self,
        x: Float[Array, "n t d"],
        segments: Int[Array, "n t"],
        turn: tuple[Float[Array, "n t half"], Float[Array, "n t half"]],
        seed: UInt32[Array, ""] | None,
    ) -> Float[Array, "n t d"]:
        def split(y: Array, heads: int) -> Array:
            return jax.lax.reshape(y, (*y.shape[:2], heads, self.spec.head_size), out_sharding=HEADS)

        q = checkpoint_name(rotate(split(self.q(x, seed), self.spec.heads), *turn), "q")
        k = checkpoint_name(rotate(split(self.k(x, seed), self.spec.kv_heads), *turn), "k")
        v = checkpoint_name(split(self.v(x, seed), self.spec.kv_heads), "v")
        mixed = attend(q, k, v, segments, self.spec.window, self.kernel)
        flat = jax.lax.reshape(
            mixed, (*x.shape[:2], mixed.shape[2] * mixed.shape[3]), out_sharding=PartitionSpec(BATCH, None, "tensor")
        )
        return checkpoint_name(self.o(flat, seed), "wo")
