"""The device mesh and the one table from logical axes to mesh axes.

Modules name logical axes only. The mesh is always explicit (`AxisType.Explicit`), also on one device: every
movement of data between devices is a `reshard` or an `out_sharding=` in the source.
"""

import math
from collections.abc import Sequence

import jax
from jax.experimental.mesh_utils import create_hybrid_device_mesh
from jax.sharding import AxisType, NamedSharding, PartitionSpec, reshard

from e5jax.config import Mesh as MeshConfig
from e5jax.errors import ConfigError

AXES = ("data", "fsdp", "tensor")
BATCH = ("data", "fsdp")  # rows and queries are spread over both

# Logical axis -> mesh axis. `fsdp` shards storage only: a weight is gathered over it right before its use.
RULES: dict[str, str | None] = {
    "layers": None,
    "vocab": None,
    "rank": None,
    "embed": "fsdp",
    "heads": "tensor",
    "kv": "tensor",
    "ff": "tensor",
}


def make_mesh(config: MeshConfig, devices: Sequence[jax.Device] | None = None) -> jax.sharding.Mesh:
    """Mesh over all devices (or the ones given); raises ConfigError when the sizes do not fill them.

    Over several slices of TPUs the axis `data` goes from slice to slice, the others stay inside: what `data` needs is one
    sum of gradients a step, and the network between slices is the slow one.
    """
    devices = jax.devices() if devices is None else devices
    sizes = [getattr(config, axis) for axis in AXES]
    known = math.prod(size for size in sizes if size > 0)
    if len(devices) % known or (-1 not in sizes and known != len(devices)):
        raise ConfigError(
            f"config.mesh={dict(zip(AXES, sizes, strict=True))}: needs a multiple of {known} devices and there are {len(devices)}; "
            "let the product equal the number of devices, or set one axis to -1"
        )
    shape = tuple(len(devices) // known if size == -1 else size for size in sizes)
    types = (AxisType.Explicit,) * len(AXES)
    slices = len({getattr(device, "slice_index", None) for device in devices})
    if slices == 1:
        return jax.make_mesh(shape, AXES, axis_types=types, devices=devices)
    if shape[0] % slices:
        raise ConfigError(
            f"config.mesh.data={shape[0]}: must be a multiple of the {slices} slices; set --config.mesh.data={slices}"
        )
    inside = (shape[0] // slices, *shape[1:])
    return jax.sharding.Mesh(create_hybrid_device_mesh(inside, (slices, 1, 1), devices), AXES, axis_types=types)


def spec(logical: Sequence[str | None]) -> PartitionSpec:
    """The partition of an array with these logical axes."""
    return PartitionSpec(*(RULES[name] if name else None for name in logical))


def sharding(mesh: jax.sharding.Mesh, logical: Sequence[str | None]) -> NamedSharding:
    """The placement of an array with these logical axes on this mesh."""
    return NamedSharding(mesh, spec(logical))


def gather_fsdp(weight: jax.Array) -> jax.Array:
    """All-gathers a weight over `fsdp`; what `tensor` shards stays sharded."""
    stored = jax.typeof(weight).sharding.spec
    with jax.named_scope("gather"):
        return reshard(weight, PartitionSpec(*(None if axis == "fsdp" else axis for axis in stored)))
