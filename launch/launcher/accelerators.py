"""TPU types as the cloud calls them, their topologies as `e5jax plan` and Kubernetes call them, and how many hosts they have.

https://cloud.google.com/tpu/docs/system-architecture-tpu-vm
"""

import math
from typing import NamedTuple

from e5jax.errors import ConfigError


class Generation(NamedTuple):
    """Its name in `e5jax plan`, Kubernetes' label, cores that the cloud counts a chip, software of its machines, shapes."""

    plan: str
    label: str
    cores: int
    runtime: str
    shapes: tuple[str, ...]  # by number of chips


FLAT = ("1x1", "2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16")
CUBES = ("2x2x1", "2x2x2", "2x2x4", "2x4x4", "4x4x4", "4x4x8", "4x8x8", "8x8x8")
GENERATIONS = {
    "v4": Generation("v4", "tpu-v4-podslice", 2, "tpu-ubuntu2204-base", CUBES),
    "v5litepod": Generation("v5e", "tpu-v5-lite-podslice", 1, "v2-alpha-tpuv5-lite", FLAT),
    "v5p": Generation("v5p", "tpu-v5p-slice", 2, "v2-alpha-tpuv5", CUBES),
    "v6e": Generation("v6e", "tpu-v6e-slice", 1, "v2-alpha-tpuv6e", FLAT),
}
ON_HOST = 4  # chips of a host of a slice with several hosts


class Slice(NamedTuple):
    """A slice that one can ask for."""

    generation: Generation
    shape: str

    @property
    def chips(self) -> int:
        return math.prod(map(int, self.shape.split("x")))

    @property
    def hosts(self) -> int:
        """Machines of it; eight chips of v5e and v6e come as one or two, and these are two."""
        return max(1, self.chips // ON_HOST)


def slice_of(accelerator: str) -> Slice:
    """By the cloud's name, such as v5litepod-16. Raises ConfigError."""
    name, _, size = accelerator.rpartition("-")
    found = GENERATIONS.get(name)
    shapes = (
        {}
        if found is None
        else {math.prod(map(int, shape.split("x"))) * found.cores: shape for shape in found.shapes}
    )
    if found is None or not size.isdecimal() or int(size) not in shapes:
        sizes = (
            f"; {name} comes as {', '.join(map(str, shapes))}"
            if shapes
            else f"; there are {', '.join(f'{n}-N' for n in GENERATIONS)}"
        )
        raise ConfigError(f"--accelerator={accelerator}: not a TPU slice that this knows{sizes}")
    return Slice(found, shapes[int(size)])


def topology_of(accelerator: str) -> str:
    """As `e5jax plan` calls it."""
    found = slice_of(accelerator)
    return f"{found.generation.plan}:{found.shape}"
