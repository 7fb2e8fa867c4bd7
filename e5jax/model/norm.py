"""RMSNorm (arXiv 1910.07467) and rotary position embedding (arXiv 2104.09864)."""

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import PartitionSpec, reshard
from jaxtyping import Array, Float, Int

from e5jax.mesh import gather_fsdp
from e5jax.model.variables import Axes, weight


class RMSNorm(nnx.Module):
    """`x / rms(x) · scale`, statistics in float32."""

    def __init__(self, axes: Axes, shape: tuple[int, ...], epsilon: float):
        self.scale = weight(jnp.ones(shape), axes)
        self.epsilon = epsilon

    def __call__(self, x: Float[Array, "n t d"]) -> Float[Array, "n t d"]:
        return scaled(normalised(x, self.epsilon), gather_fsdp(self.scale[...]).astype(x.dtype))


def normalised(x: Float[Array, "n t d"], epsilon: float) -> Float[Array, "n t d"]:
    """`x / rms(x)`."""
    wide = x.astype(jnp.float32)
    inverse = jax.lax.rsqrt(jnp.mean(jnp.square(wide), axis=-1) + epsilon)
    # As a product, whose gradient of `inverse` is one too: of the sum that `wide * inverse[..., None]` leads to, a CPU with one
    # row makes ten times as much work.
    return jnp.einsum("ntd,nt->ntd", wide, inverse, precision=jax.lax.Precision.HIGHEST).astype(
        x.dtype
    )


@jax.custom_vjp
def scaled(x: Float[Array, "n t d"], scale: Float[Array, " d"]) -> Float[Array, "n t d"]:
    """`x · scale`, with a gradient of `scale` that is summed over devices only where its placement says so."""
    return x * reshard(scale, PartitionSpec(None))[None, None]


def _forward(x: Array, scale: Array) -> tuple[Array, tuple[Array, Array]]:
    return scaled(x, scale), (x, scale)


def _backward(kept: tuple[Array, Array], g: Array) -> tuple[Array, Array]:
    x, scale = kept
    deferred = jax.typeof(scale).sharding.spec.reduced
    return scaled(g, scale), jnp.einsum(
        "ntd,ntd->d", x, g, out_sharding=PartitionSpec(None, unreduced=deferred)
    )


scaled.defvjp(_forward, _backward)


@jax.custom_vjp
def shifted(x: Float[Array, "n t d"], bias: Float[Array, " d"]) -> Float[Array, "n t d"]:
    """`x + bias`, with a gradient of `bias` like that of `scaled`."""
    return x + reshard(bias, PartitionSpec(*jax.typeof(bias).sharding.spec.partitions))[None, None]


def _forward_shifted(x: Array, bias: Array) -> tuple[Array, Array]:
    return shifted(x, bias), bias


def _backward_shifted(bias: Array, g: Array) -> tuple[Array, Array]:
    (axis,), deferred = (
        jax.typeof(bias).sharding.spec.partitions,
        jax.typeof(bias).sharding.spec.reduced,
    )
    ones = jnp.ones(
        g.shape[:2], g.dtype, out_sharding=PartitionSpec(*jax.typeof(g).sharding.spec[:2])
    )
    return g, jnp.einsum("nt,ntd->d", ones, g, out_sharding=PartitionSpec(axis, unreduced=deferred))


shifted.defvjp(_forward_shifted, _backward_shifted)


def rotary(
    positions: Int[Array, "n t"], size: int, theta: float
) -> tuple[Float[Array, "n t half"], Float[Array, "n t half"]]:
    """Cosine and sine of position × theta^(-2i/size), float32."""
    frequency = theta ** (-jnp.arange(0, size, 2, dtype=jnp.float32) / size)
    angle = positions[..., None].astype(jnp.float32) * frequency[None, None]
    return jnp.cos(angle), jnp.sin(angle)


def rotate(
    x: Float[Array, "n t heads e"], cosine: Float[Array, "n t half"], sine: Float[Array, "n t half"]
) -> Array:
    """Rotates dimension pairs (i, i + e/2), the pairing of Hugging Face weights."""
    first, second = jnp.split(x, 2, axis=-1)
    cosine, sine = (part[:, :, None, :].astype(x.dtype) for part in (cosine, sine))
    return jnp.concatenate(
        [first * cosine - second * sine, second * cosine + first * sine], axis=-1
    )
