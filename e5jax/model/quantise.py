"""Frozen kernels as integers: int8 with one scale an output, int4 with one scale for each 128 inputs of an output.

Both are symmetric: `W ≈ scale · q` with q in -127 … 127 or -7 … 7, so the largest number of a group is met exactly and
any other is off by half a scale at most. NumPy makes the integers while a base is read; JAX multiplies with them.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec
from jaxtyping import Array, Float, Int

from e5jax.config import Mesh, Quantisation
from e5jax.errors import ConfigError
from e5jax.model.spec import Spec

GROUP = 128  # inputs that share a scale in int4
LARGEST = {"int8": 127, "int4": 7}


def groups(kind: Quantisation, inputs: int) -> int:
    """Scales that each output has."""
    return max(inputs // GROUP, 1) if kind == "int4" else 1


def scales(kernel: Float[np.ndarray, "i o"], kind: Quantisation) -> Float[np.ndarray, "g o"]:
    """Largest magnitude of each group over the largest integer, float32."""
    inputs, outputs = kernel.shape
    grouped = kernel.astype(np.float32, copy=False).reshape(groups(kind, inputs), -1, outputs)
    return np.maximum(grouped.max(axis=1), -grouped.min(axis=1)) / np.float32(LARGEST[kind])


def integers(
    kernel: Float[np.ndarray, "i o"], scale: Float[np.ndarray, "g o"]
) -> Float[np.ndarray, "i o"]:
    """The nearest integers of a kernel, or of a slice of it with the scales of that slice; kept as float32."""
    grouped = kernel.astype(np.float32, copy=False).reshape(len(scale), -1, kernel.shape[1])
    # A group of zeros has scale zero, and stays zero.
    return np.rint(grouped / np.where(scale > 0, scale, np.float32(1))[:, None]).reshape(
        kernel.shape
    )


def dequantise(
    kernel: Int[Array, "i o"], scale: Float[Array, "g o"], dtype: jnp.dtype
) -> Float[Array, "i o"]:
    """`scale · q`, multiplied in float32, in the placement of `kernel`."""
    rows, columns = jax.typeof(kernel).sharding.spec
    split = (scale.shape[0], kernel.shape[0] // scale.shape[0], kernel.shape[1])
    grouped = jax.lax.reshape(
        kernel, split, out_sharding=PartitionSpec(rows, None, columns)
    ).astype(jnp.float32)
    return jax.lax.reshape(
        (grouped * scale[:, None]).astype(dtype),
        kernel.shape,
        out_sharding=PartitionSpec(rows, columns),
    )


def bytes_per_parameter(kind: Quantisation, inputs: int) -> float:
    """Bytes of one number of a kernel, with its share of the scales."""
    return {"int8": 1.0, "int4": 0.5}[kind] + 4 * groups(kind, inputs) / inputs


def check_groups(spec: Spec, kind: Quantisation, mesh: Mesh) -> None:
    """Groups of int4 must fill the inputs of every map and divide over the mesh; -1 counts as 1 until devices are known."""
    if kind != "int4":
        return
    wide = spec.heads * spec.head_size
    for name, inputs, axis in [
        ("hidden", spec.hidden, "fsdp"),
        ("heads × head_size", wide, "tensor"),
        ("ff", spec.ff, "tensor"),
    ]:
        devices, found = max(getattr(mesh, axis), 1), groups(kind, inputs)
        if inputs % GROUP or (found > 1 and found % devices):
            raise ConfigError(
                f"config.model.quantisation='int4' has groups of {GROUP} inputs, which the model's {name}={inputs} does not fill "
                f"{f'evenly over config.mesh.{axis}={devices}' if devices > 1 else 'evenly'}; use 'int8'"
            )
