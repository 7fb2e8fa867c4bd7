"""The machine that a plan is for: `v5e:4x4`, or `cpu:8`. Imports no JAX, whose settings it prepares.

TPUs are compiled for with libtpu alone; no TPU, driver or metadata server is asked.
"""

import math
import os
import re
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from e5jax.errors import ConfigError

# Dimensions of the network, and the most chips.
TPUS = {"v4": (3, 4_096), "v5e": (2, 256), "v5p": (3, 8_960), "v6e": (2, 256)}
EXAMPLES = "v5e:4x4, v4:2x2x4, v5p:2x2x2, v6e:4x4, v5e:1x1 or cpu:8"
CPUS = Path(
    "/sys/devices/system/cpu/possible"
)  # where libtpu counts cores; without it libtpu aborts the process
_HOST = 2  # chips of a host along each of the first two dimensions


class Topology(NamedTuple):
    """`slices` equal slices of `shape` chips each."""

    generation: str
    shape: tuple[int, ...]
    slices: int

    @property
    def chips(self) -> int:
        """All of them."""
        return math.prod(self.shape) * self.slices

    @property
    def name(self) -> str:
        """As it is written on the command line."""
        return f"{self.generation}:{'x'.join(map(str, self.shape))}"

    @property
    def options(self) -> dict[str, object]:
        """What libtpu must be told beside the name."""
        chosen: dict[str, object] = {}
        if math.prod(self.shape) == 1:
            chosen["chips_per_host_bounds"] = (1, 1, 1)  # a host has four chips otherwise
        if self.generation == "v4":
            chosen["chip_config_name"] = "megacore"  # one device a chip, as on a v4 machine
        if self.slices > 1:
            chosen["num_slices"] = self.slices
        return chosen


def parse_topology(text: str, slices: int = 1) -> Topology:
    """Reads `GENERATION:AxB` or `cpu:N`. Raises ConfigError."""
    found = re.fullmatch(r"(\w+):(\d+(?:x\d+)*)", text)
    if found is None or (found[1] != "cpu" and found[1] not in TPUS):
        raise ConfigError(f"--topology={text}: not a machine this knows; write one like {EXAMPLES}")
    if slices < 1:
        raise ConfigError(f"--slices={slices}: must be at least 1")
    made = Topology(found[1], tuple(map(int, found[2].split("x"))), slices)
    if made.generation == "cpu":
        if len(made.shape) > 1 or not made.chips or slices > 1:
            raise ConfigError(
                f"--topology={text} --slices={slices}: a CPU is one slice of N devices, such as cpu:8"
            )
        return made
    dimensions, most = TPUS[made.generation]
    if len(made.shape) != dimensions:
        raise ConfigError(
            f"--topology={text}: {made.generation} has {dimensions} dimensions; write one like {EXAMPLES}"
        )
    single = math.prod(made.shape) == 1
    if not 0 < math.prod(made.shape) <= most or not (
        single or all(size % _HOST == 0 for size in made.shape[:2])
    ):
        raise ConfigError(
            f"--topology={text}: {made.generation} comes as one chip or as even numbers along the first two dimensions, "
            f"up to {most} chips"
        )
    return made


def prepare(topology: Topology) -> None:
    """Sets the environment in which JAX must be imported. Raises ConfigError where libtpu is missing or cannot start."""
    os.environ["JAX_PLATFORMS"] = "cpu"
    if topology.generation == "cpu":
        flags = os.environ.get("XLA_FLAGS", "")
        os.environ["XLA_FLAGS"] = (
            f"{flags} --xla_force_host_platform_device_count={topology.chips}".strip()
        )
        return
    if find_spec("libtpu") is None:
        raise ConfigError(
            f"--topology={topology.name}: compiling for TPUs needs the package libtpu: pip install 'libtpu==0.0.42.*' "
            "(x86-64 Linux, with jax 0.10.2; no TPU is needed)"
        )
    if not CPUS.exists():
        raise ConfigError(
            f"--topology={topology.name}: compiling for TPUs needs {CPUS}, which is not here: mount -t sysfs sysfs /sys "
            "(a bare chroot has none; machines and containers do)"
        )
    os.environ |= {
        "TPU_SKIP_MDS_QUERY": "1",  # there is no metadata server
        "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
        # Without these libtpu complains on stderr about a machine that is not there; the topology is the one asked for.
        "TPU_ACCELERATOR_TYPE": "v5litepod-1",
        "TPU_WORKER_HOSTNAMES": "localhost",
        "TPU_WORKER_ID": "0",
        "TPU_MIN_LOG_LEVEL": "3",
        "TPU_STDERR_LOG_LEVEL": "3",
    }
