"""Grouped-query attention inside each text of a row, causal or not, with an optional sliding window."""

import jax
from flax import nnx
from jax.ad_checkpoint import checkpoint_name
from jax.sharding import PartitionSpec
from jaxtyping import Array, Float, Int, UInt32

from e5jax.mesh import BATCH
from e5jax.model.dense import Dense, Lora
from e5jax.model.kernels import HEADS, Concrete, attend
from e5jax.model.norm import rotate
from e5jax.model.spec import Spec


class Attention(nnx.Module):
    """The attention block of `layers` stacked layers."""

    def __init__(self, spec: Spec, lora: dict[str, Lora], kernel: Concrete, *, rngs: nnx.Rngs):
        wide, narrow = spec.heads * spec.head_size, spec.kv_heads * spec.head_size
        self.q = Dense(
            "q",
            spec.layers,
            ("embed", "heads"),
            (spec.hidden, wide),
            lora.get("q"),
            bias=spec.bias,
            rngs=rngs,
        )
        self.k = Dense(
            "k",
            spec.layers,
            ("embed", "kv"),
            (spec.hidden, narrow),
            lora.get("k"),
            bias=spec.bias,
            rngs=rngs,
        )
        self.v = Dense(
            "v",
            spec.layers,
            ("embed", "kv"),
            (spec.hidden, narrow),
            lora.get("v"),
            bias=spec.bias,
            rngs=rngs,
        )
        self.o = Dense(
            "o",
            spec.layers,
            ("heads", "embed"),
            (wide, spec.hidden),
            lora.get("o"),
            bias=spec.bias,
            rngs=rngs,
        )
        self.spec = spec
        self.kernel: Concrete = kernel

    def __call__(
        self,
        x: Float[Array, "n t d"],
        segments: Int[Array, "n t"],
        turn: tuple[Float[Array, "n t half"], Float[Array, "n t half"]],
        seed: UInt32[Array, ""] | None,
        shared: int = 0,
    ) -> Float[Array, "n t d"]:
        def split(y: Array, heads: int) -> Array:
            return jax.lax.reshape(
                y, (*y.shape[:2], heads, self.spec.head_size), out_sharding=HEADS
            )

        q = checkpoint_name(rotate(split(self.q(x, seed), self.spec.heads), *turn), "q")
        k = checkpoint_name(rotate(split(self.k(x, seed), self.spec.kv_heads), *turn), "k")
        v = checkpoint_name(split(self.v(x, seed), self.spec.kv_heads), "v")
        with jax.named_scope("kernel"):
            mixed = attend(
                q, k, v, segments, self.spec.window, self.kernel, shared, self.spec.causal
            )
        flat = jax.lax.reshape(
            mixed,
            (*x.shape[:2], mixed.shape[2] * mixed.shape[3]),
            out_sharding=PartitionSpec(BATCH, None, "tensor"),
        )
        return checkpoint_name(self.o(flat, seed), "wo")
