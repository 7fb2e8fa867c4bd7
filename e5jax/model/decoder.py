"""The decoder: embedding table, stacked layers under `scan` + `checkpoint`, final norm. It knows no family."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx
from jax.ad_checkpoint import checkpoint_name
from jax.sharding import PartitionSpec
from jaxtyping import Array, Float, Int, UInt32

from e5jax.config import Remat
from e5jax.mesh import BATCH, gather_fsdp
from e5jax.model.attention import Attention
from e5jax.model.dense import Dense, Lora
from e5jax.model.kernels import Concrete
from e5jax.model.norm import RMSNorm, rotary
from e5jax.model.spec import Spec
from e5jax.model.variables import adapter, weight

ROWS = PartitionSpec(BATCH, None, None)

# What a layer keeps for its backward pass. Names rather than jax's `dots_*` policies: with LoRA those would keep
# the base product and the low-rank product of every map; and without any policy the gathered weights stay alive.
PROJECTIONS = ("q", "k", "v", "wo", "gate", "up")
NAMES: dict[Remat, tuple[str, ...]] = {
    "nothing": (),
    "projections": PROJECTIONS,
    "attention": (*PROJECTIONS, "mixed", "normaliser"),
}
FUSED = "dot_product_attention_fwd_wrapper"  # cuDNN's attention is one operation: what it returns cannot be named inside


def remat_policy(remat: Remat, *more: str) -> Callable[..., bool]:
    """What `jax.checkpoint` saves around a layer; around a whole decoder add "x", each layer's input."""
    if remat == "everything":
        return jax.checkpoint_policies.everything_saveable
    named = jax.checkpoint_policies.save_only_these_names(*NAMES[remat], *more)
    if remat != "attention":
        return named
    return lambda operation, *avals, **how: (
        operation.name == FUSED or named(operation, *avals, **how)
    )


class FeedForward(nnx.Module):
    """SwiGLU (arXiv 2002.05202): `(silu(x G) * x U) D`."""

    def __init__(self, spec: Spec, lora: dict[str, Lora], *, rngs: nnx.Rngs):
        self.gate = Dense(
            "gate",
            spec.layers,
            ("embed", "ff"),
            (spec.hidden, spec.ff),
            lora.get("gate"),
            bias=spec.bias,
            rngs=rngs,
        )
        self.up = Dense(
            "up",
            spec.layers,
            ("embed", "ff"),
            (spec.hidden, spec.ff),
            lora.get("up"),
            bias=spec.bias,
            rngs=rngs,
        )
        self.down = Dense(
            "down",
            spec.layers,
            ("ff", "embed"),
            (spec.ff, spec.hidden),
            lora.get("down"),
            bias=spec.bias,
            rngs=rngs,
        )

    def __call__(
        self, x: Float[Array, "n t d"], seed: UInt32[Array, ""] | None
    ) -> Float[Array, "n t d"]:
        gate = checkpoint_name(self.gate(x, seed), "gate")
        up = checkpoint_name(self.up(x, seed), "up")
        return self.down(jax.nn.silu(gate) * up, seed)


class Layer(nnx.Module):
    """Pre-norm attention and feed-forward; holds the weights of all layers, runs as one of them inside the scan."""

    def __init__(self, spec: Spec, lora: dict[str, Lora], kernel: Concrete, *, rngs: nnx.Rngs):
        shape = (spec.layers, spec.hidden)
        self.attention_norm = RMSNorm(("layers", "embed"), shape, spec.epsilon)
        self.attention = Attention(spec, lora, kernel, rngs=rngs)
        self.ff_norm = RMSNorm(("layers", "embed"), shape, spec.epsilon)
        self.ff = FeedForward(spec, lora, rngs=rngs)

    def __call__(
        self,
        x: Float[Array, "n t d"],
        segments: Int[Array, "n t"],
        turn: tuple[Float[Array, "n t half"], Float[Array, "n t half"]],
        seed: UInt32[Array, ""] | None,
        shared: int = 0,
    ) -> Float[Array, "n t d"]:
        with jax.named_scope("attention"):
            x = x + self.attention(self.attention_norm(x), segments, turn, seed, shared)
        with jax.named_scope("ff"):
            return x + self.ff(self.ff_norm(x), seed)


class Decoder(nnx.Module):
    """Hidden states of packed rows.

    `lora` names an adapter for each map that has one; no entry, no adapter. The reference for the numbers is
    `transformers.MistralModel`.
    """

    def __init__(
        self,
        spec: Spec,
        lora: dict[str, Lora],
        *,
        dtype: str,
        remat: Remat,
        kernel: Concrete,
        rngs: nnx.Rngs,
    ):
        self.embedding = weight(
            0.02 * jax.random.normal(rngs(), (spec.vocab, spec.hidden)), ("vocab", "embed")
        )
        if spec.added:
            self.added = adapter(
                0.02 * jax.random.normal(rngs(), (spec.added, spec.hidden)), ("vocab", "embed")
            )
        self.layers = Layer(spec._replace(layers=spec.layers - spec.top), lora, kernel, rngs=rngs)
        self.top = (
            Layer(spec._replace(layers=spec.top), lora, kernel, rngs=rngs) if spec.top else None
        )
        self.norm = RMSNorm(("embed",), (spec.hidden,), spec.epsilon)
        self.spec = spec
        self.dtype = dtype
        self.remat: Remat = remat

    def __call__(
        self,
        tokens: Int[Array, "n t"],
        segments: Int[Array, "n t"],
        positions: Int[Array, "n t"],
        seeds: UInt32[Array, " l"] | None = None,
        shared: int = 0,
    ) -> Float[Array, "n t d"]:
        """Final hidden states after the last norm. `seeds`, one a layer, switch LoRA dropout on.

        The first `shared` tokens of a row, of segment SHARED, are the start of all its texts.
        """
        with jax.named_scope("embed"):
            x = self._embedded(tokens)
            turn = rotary(positions, self.spec.head_size, self.spec.theta)
        middle = self.spec.layers - self.spec.top
        for layers, own in ((self.layers, slice(0, middle)), (self.top, slice(middle, None))):
            if layers is not None:
                x = self._run(
                    layers, x, segments, turn, None if seeds is None else seeds[own], shared
                )
        with jax.named_scope("norm"):
            return self.norm(checkpoint_name(x, "x"))

    def _embedded(self, tokens: Int[Array, "n t"]) -> Float[Array, "n t d"]:
        """Rows of the table; those of new tokens are in one of their own."""
        first = self.spec.vocab
        if not self.spec.added:
            return self._rows(self.embedding[...], tokens)
        known, new = jnp.minimum(tokens, first - 1), jnp.maximum(tokens - first, 0)
        is_new = (tokens >= first)[..., None]
        return jnp.where(
            is_new, self._rows(self.added[...], new), self._rows(self.embedding[...], known)
        )

    def _rows(self, table: Float[Array, "v d"], tokens: Int[Array, "n t"]) -> Float[Array, "n t d"]:
        table = gather_fsdp(table)
        each = (jax.typeof(table).sharding.spec, PartitionSpec(BATCH, None))
        return jax.shard_map(_look_up, in_specs=each, out_specs=ROWS)(table, tokens).astype(
            self.dtype
        )

    def _run(
        self,
        layers: Layer,
        x: Array,
        segments: Array,
        turn: tuple[Array, Array],
        seeds: Array | None,
        shared: int,
    ) -> Array:
        """Through some of the layers."""
        graph, stacked = nnx.split(layers)

        @partial(jax.checkpoint, policy=remat_policy(self.remat))
        def run(x: Array, state: nnx.State, seed: Array | None) -> Array:
            return nnx.merge(graph, state)(x, segments, turn, seed, shared)

        def one_layer(x: Array, layer: tuple[nnx.State, Array | None]) -> tuple[Array, None]:
            return run(checkpoint_name(x, "x"), *layer), None

        with jax.named_scope("layers"):
            return jax.lax.scan(one_layer, x, (stacked, seeds))[0]


def _look_up(table: Float[Array, "v d"], ids: Int[Array, "n t"]) -> Float[Array, "n t d"]:
    """Rows of the table, on one device.

    Left to the compiler the ids, which "everything" keeps, would get a type of another mesh, and could not leave a chunk.
    """
    # As one row of ids: around a gather of more dimensions in a conditional libtpu 0.0.42 fails to lay out a program that uses
    # host memory.
    return table[ids.reshape(-1)].reshape(*ids.shape, table.shape[-1])
