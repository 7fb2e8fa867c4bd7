"""The linear map, with or without a low-rank adapter beside it (LoRA, arXiv 2106.09685)."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import PartitionSpec, reshard
from jaxtyping import Array, Float, UInt32

from e5jax.config import TARGETS, Quantisation, Target
from e5jax.mesh import BATCH, RULES, gather_fsdp
from e5jax.model.dropout import dropout
from e5jax.model.norm import shifted
from e5jax.model.quantise import dequantise, groups
from e5jax.model.variables import Quantised, adapter, quantised, weight


class Lora(NamedTuple):
    """Shape and strength of an adapter."""

    rank: int
    alpha: float
    dropout: float
    inside: bool = False  # compute x (W + s A B) where that is possible; for float32 products only, as W's rounding hides A B

    @property
    def scale(self) -> float:
        return self.alpha / self.rank


class Dense(nnx.Module):
    """`y = x W + (alpha / rank) dropout(x) A B`, and a bias if there is one; `layers` maps of it stacked along the first dimension.

    `A` starts Kaiming-uniform and `B` at zero, as in PEFT, so a new adapter changes nothing.
    """

    def __init__(
        self,
        name: Target,
        layers: int,
        axes: tuple[str, str],
        sizes: tuple[int, int],
        lora: Lora | None,
        *,
        bias: bool,
        rngs: nnx.Rngs,
    ):
        self.kernel = weight(0.02 * jax.random.normal(rngs(), (layers, *sizes)), ("layers", *axes))
        self.kernel_scale: Quantised | None = nnx.data(
            None
        )  # what turns an integer kernel into numbers
        self.bias = weight(jnp.zeros((layers, sizes[1])), ("layers", axes[1])) if bias else None
        self.lora = lora
        self.number = TARGETS.index(name)  # tells the dropout masks of a layer apart
        self.out_axis = RULES[axes[1]] if RULES[axes[1]] != "fsdp" else None
        if lora is not None:
            bound = sizes[0] ** -0.5  # kaiming_uniform(a=sqrt(5)) of torch
            factor = jax.random.uniform(
                rngs(), (layers, sizes[0], lora.rank), minval=-bound, maxval=bound
            )
            self.lora_a = adapter(factor, ("layers", axes[0], "rank"))
            self.lora_b = adapter(
                jnp.zeros((layers, lora.rank, sizes[1])), ("layers", "rank", axes[1])
            )

    def __call__(
        self, x: Float[Array, "n t i"], seed: UInt32[Array, ""] | None
    ) -> Float[Array, "n t o"]:
        y = self._mapped(x, seed)
        return y if self.bias is None else shifted(y, gather_fsdp(self.bias[...].astype(y.dtype)))

    def _mapped(
        self, x: Float[Array, "n t i"], seed: UInt32[Array, ""] | None
    ) -> Float[Array, "n t o"]:
        if self.lora is None:
            return self._base(x)
        seed = seed if self.lora.dropout > 0 else None
        if self.lora.inside and seed is None and self.kernel_scale is None:
            kernels = (
                gather_fsdp(each[...].astype(x.dtype))
                for each in (self.kernel, self.lora_a, self.lora_b)
            )
            return adapted(x, *kernels, self.lora.scale, self.out_axis)
        y = self._base(x)
        if seed is not None:
            x = dropout(x, self.lora.dropout, seed, self.number)
        low = self._product(x, self.lora_a[...], None)
        return y + self._product(low, self.lora_b[...], self.out_axis) * jnp.asarray(
            self.lora.scale, y.dtype
        )

    def quantise(self, kind: Quantisation) -> None:
        """Makes the kernel integers with scales, all zero: `hf.load` makes the numbers from a base folder."""
        layers, inputs, outputs = self.kernel.shape
        first, inner, outer = self.kernel.get_metadata()["axes"]
        each = groups(kind, inputs)
        self.kernel = quantised(jnp.zeros(self.kernel.shape, kind), (first, inner, outer))
        self.kernel_scale = quantised(
            jnp.zeros((layers, each, outputs)), (first, inner if each > 1 else None, outer)
        )

    def _base(self, x: Array) -> Array:
        if self.kernel_scale is None:
            return self._product(x, self.kernel[...], self.out_axis)
        # Gathered as integers: half the traffic of bfloat16, or a quarter.
        kernel, scale = gather_fsdp(self.kernel[...]), gather_fsdp(self.kernel_scale[...])
        if len(scale) > 1:
            return product(x, dequantise(kernel, scale, x.dtype), self.out_axis)
        # One scale an output can wait for the product, whose sums over `tensor` then travel in the run's dtype.
        y: Array = product(x, kernel.astype(x.dtype), self.out_axis)
        return (y * scale[None]).astype(x.dtype)

    def _product(self, x: Array, kernel: Array, out_axis: str | None) -> Array:
        # Cast before the gather: half the traffic when float32 parameters compute in bfloat16.
        return product(x, gather_fsdp(kernel.astype(x.dtype)), out_axis)


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def product(
    x: Float[Array, "n t i"], kernel: Float[Array, "i o"], out_axis: str | None
) -> Float[Array, "n t o"]:
    """`x W`, its last dimension on the mesh axis `out_axis`.

    The gradient of W contracts over all tokens, for which one operand has to be transposed in memory. Automatic
    differentiation would transpose the cotangent, the widest array of a LoRA step; this takes the narrower of the two.
    """
    return jnp.einsum("nti,io->nto", x, kernel, out_sharding=PartitionSpec(BATCH, None, out_axis))


def _forward(x: Array, kernel: Array, out_axis: str | None) -> tuple[Array, tuple[Array, Array]]:
    return product(x, kernel, out_axis), (x, kernel)


def _backward(_: str | None, kept: tuple[Array, Array], g: Array) -> tuple[Array, Array]:
    x, kernel = kept
    back = jnp.einsum("nto,io->nti", g, kernel, out_sharding=PartitionSpec(BATCH, None, _axis(x)))
    return back, _over_tokens(x, g, kernel)


product.defvjp(_forward, _backward)


@partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def adapted(
    x: Float[Array, "n t i"],
    kernel: Float[Array, "i o"],
    a: Float[Array, "i r"],
    b: Float[Array, "r o"],
    scale: float,
    out_axis: str | None,
) -> Float[Array, "n t o"]:
    """`x (W + scale A B)`, its last dimension on the mesh axis `out_axis`.

    One wide product each way, where `x W + scale (x A) B` takes a second one as wide and a sum. The gradients of A and B
    are those of the two: the gradient of W, of which automatic differentiation would make them, is never computed.
    """
    return product(x, _sum(kernel, a, b, scale), out_axis)


def _forward_adapted(
    x: Array, kernel: Array, a: Array, b: Array, scale: float, out_axis: str | None
) -> tuple[Array, tuple[Array, ...]]:
    return adapted(x, kernel, a, b, scale, out_axis), (x, kernel, a, b)


def _backward_adapted(
    scale: float, _: str | None, kept: tuple[Array, ...], g: Array
) -> tuple[Array, ...]:
    x, kernel, a, b = kept
    back = jnp.einsum(
        "nto,io->nti",
        g,
        _sum(kernel, a, b, scale),
        out_sharding=PartitionSpec(BATCH, None, _axis(x)),
    )
    low: Array = product(x, a, None)
    low_g = jnp.einsum("nto,ro->ntr", g, b, out_sharding=PartitionSpec(BATCH, None, None))
    # Scaled before the products: an unfinished sum is not multiplied. Without the barrier the compiler moves the transpose from
    # the small result to the operands, and a CPU computes that product at a tenth of its rate.
    for_a = jax.lax.optimization_barrier(_over_tokens(low_g * scale, x, a)).T
    return back, _over_tokens(x, g, kernel), for_a, _over_tokens(low * scale, g, b)


adapted.defvjp(_forward_adapted, _backward_adapted)


def _sum(kernel: Array, a: Array, b: Array, scale: float) -> Float[Array, "i o"]:
    a, b = (
        reshard(each, PartitionSpec(*jax.typeof(each).sharding.spec.partitions)) for each in (a, b)
    )
    return kernel + scale * jnp.einsum(
        "ir,ro->io", a, b, out_sharding=PartitionSpec(jax.typeof(a).sharding.spec[0], _axis(b))
    )


def _axis(x: Array) -> str | None:
    """The mesh axis of the last dimension."""
    return jax.typeof(x).sharding.spec[-1]


def _over_tokens(
    x: Float[Array, "n t i"], g: Float[Array, "n t o"], kernel: Float[Array, "i o"]
) -> Float[Array, "i o"]:
    """`x^T g`, the gradient of a kernel, with the narrower of the two transposed; summed over devices where the kernel says so."""
    tokens = (((0, 1), (0, 1)), ((), ()))
    deferred = jax.typeof(kernel).sharding.spec.reduced
    if x.shape[-1] <= g.shape[-1]:
        return jax.lax.dot_general(
            x, g, tokens, out_sharding=PartitionSpec(_axis(x), _axis(g), unreduced=deferred)
        )
    return jax.lax.dot_general(
        g, x, tokens, out_sharding=PartitionSpec(_axis(g), _axis(x), unreduced=deferred)
    ).T


def fold(
    kernel: Float[np.ndarray, "i o"],
    a: Float[np.ndarray, "i r"],
    b: Float[np.ndarray, "r o"],
    scale: float,
) -> Float[np.ndarray, "i o"]:
    """The kernel with its adapter merged into it: `W + scale · A B`, in float32."""
    return kernel + np.float32(scale) * (a @ b)
