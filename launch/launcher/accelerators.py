"""TPU types by their cloud names: topology in `e5jax plan` and Kubernetes, number of hosts.

https://cloud.google.com/tpu/docs/system-architecture-tpu-vm
"""

import math
from typing import NamedTuple

from e5jax.errors import ConfigError


class Generation(NamedTuple):
    """A TPU generation."""

    plan: str  # name in `e5jax plan`
    label: str  # Kubernetes label
    cores: int  # per chip, as the cloud counts
    runtime: str  # software version of its machines
    shapes: tuple[str, ...]  # by number of chips


FLAT = ("1x1", "2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16")
CUBES = ("2x2x1", "2x2x2", "2x2x4", "2x4x4", "4x4x4", "4x4x8", "4x8x8", "8x8x8")
GENERATIONS = {
    "v4": Generation("v4", "tpu-v4-podslice", 2, "tpu-ubuntu2204-base", CUBES),
    "v5litepod": Generation("v5e", "tpu-v5-lite-podslice", 1, "v2-alpha-tpuv5-lite", FLAT),
    "v5p": Generation("v5p", "tpu-v5p-slice", 2, "v2-alpha-tpuv5", CUBES),
    "v6e": Generation("v6e", "tpu-v6e-slice", 1, "v2-alpha-tpuv6e", FLAT),
}
CHIPS_PER_HOST = 4  # in a slice with several hosts


class Slice(NamedTuple):
    """A TPU slice."""

    generation: Generation
    shape: str

    @property
    def chips(self) -> int:
        return math.prod(map(int, self.shape.split("x")))

    @property
    def hosts(self) -> int:
        """Number of machines; eight chips of v5e and v6e come as one or two, counted as two."""
        return max(1, self.chips // CHIPS_PER_HOST)


def slice_of(accelerator: str) -> Slice:
    """The slice of a cloud name such as v5litepod-16. Raises ConfigError if it is unknown."""
    name, _, size = accelerator.rpartition("-")
    generation = GENERATIONS.get(name)
    if generation is None:
        names = ", ".join(f"{known}-N" for known in GENERATIONS)
        raise ConfigError(f"--accelerator={accelerator}: unknown TPU type; must be one of {names}")
    shapes = {
        math.prod(map(int, shape.split("x"))) * generation.cores: shape
        for shape in generation.shapes
    }
    if not size.isdecimal() or int(size) not in shapes:
        sizes = ", ".join(map(str, shapes))
        raise ConfigError(f"--accelerator={accelerator}: unknown size; {name} comes as {sizes}")
    return Slice(generation, shapes[int(size)])


def topology_of(accelerator: str) -> str:
    """The topology in `e5jax plan`'s notation."""
    requested = slice_of(accelerator)
    return f"{requested.generation.plan}:{requested.shape}"
