"""The device mesh and the one table from logical axes to mesh axes.

Modules name logical axes only. The mesh is always explicit (`AxisType.Explicit`), also on one device: every
movement of data between devices is a `reshard` or an `out_sharding=` in the source.
"""

import math
import os
from collections.abc import Sequence

import jax
from jax.experimental.mesh_utils import create_hybrid_device_mesh
from jax.sharding import AxisType, NamedSharding, PartitionSpec, reshard

from e5jax.config import Mesh as MeshConfig
from e5jax.config import Training
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
    sizes = _sizes(config)
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
    return jax.sharding.Mesh(
        create_hybrid_device_mesh(inside, (slices, 1, 1), devices), AXES, axis_types=types
    )


def open_cpu(runs: Sequence[Training], processes: int = 1) -> None:
    """Makes the CPU as many devices as these runs can use (without runs: as cores), to be called before JAX looks for devices.

    A device per core is faster than one with a thread per core, which run little but large products in parallel. Where XLA_FLAGS
    already gives a number it stays, and accelerators are not concerned.
    """
    if "xla_force_host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
        jax.config.update("jax_num_cpu_devices", cpu_devices(runs, os.cpu_count() or 1, processes))


def cpu_devices(runs: Sequence[Training], cores: int, processes: int = 1) -> int:
    """The most devices, at most one a core, that each mesh can fill and whose rows each batch can be dealt to; at least 1.

    A mesh without -1 asks for its own number, however many cores there are. Both are those of one process of so many alike.
    """
    asked = [
        max(1, math.prod(_sizes(run.mesh)) // processes)
        for run in runs
        if -1 not in _sizes(run.mesh)
    ]
    return max(
        asked,
        default=next(
            (n for n in range(cores, 1, -1) if all(_fits(run, n * processes) for run in runs)), 1
        ),
    )


def _fits(run: Training, devices: int) -> bool:
    known = math.prod(size for size in _sizes(run.mesh) if size > 0)
    tensor = run.mesh.tensor if run.mesh.tensor > 0 else devices // known
    return devices % known == 0 and run.batch.shards % (devices // tensor) == 0


def _sizes(config: MeshConfig) -> list[int]:
    return [getattr(config, axis) for axis in AXES]


def spec(logical: Sequence[str | None]) -> PartitionSpec:
    """The partition of an array with these logical axes."""
    return PartitionSpec(*(RULES[name] if name else None for name in logical))


def sharding(mesh: jax.sharding.Mesh, logical: Sequence[str | None]) -> NamedSharding:
    """The placement of an array with these logical axes on this mesh."""
    return NamedSharding(mesh, spec(logical))


def defer_sums(weight: jax.Array) -> jax.Array:
    """The weight, its gradient left unsummed over the devices that hold copies of it, until it gets here.

    A gradient is then summed once, however many chunks and layers have added to it. What `fsdp` shards is summed over `fsdp`
    wherever it is gathered, since a device has no room for the whole of it.
    """
    mesh, stored = jax.typeof(weight).sharding.mesh, jax.typeof(weight).sharding.spec
    if mesh.size == 1:
        return weight  # there are no copies, and JAX 0.10.2 cannot lower an unsummed scatter on one device
    copies = frozenset(axis for axis in BATCH if axis not in stored.partitions)
    return reshard(weight, PartitionSpec(*stored.partitions, reduced=copies))


def gather_fsdp(weight: jax.Array) -> jax.Array:
    """All-gathers a weight over `fsdp`; what `tensor` shards stays sharded."""
    stored = jax.typeof(weight).sharding.spec
    deferred = frozenset(BATCH) if stored.reduced else stored.reduced
    with jax.named_scope("gather"):
        return reshard(
            weight,
            PartitionSpec(
                *(None if axis == "fsdp" else axis for axis in stored.partitions), reduced=deferred
            ),
        )
