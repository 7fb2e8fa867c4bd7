"""The devices of a topology, compile-only for TPUs, and their rates."""

from typing import Literal, NamedTuple

import jax
from jax.experimental import topologies

from e5jax.errors import ConfigError
from e5jax.hardware import CHIPS, Chip, measure
from e5jax.plan.topology import Topology


class Machine(NamedTuple):
    """What a program is compiled for."""

    topology: Topology
    devices: list[jax.Device]
    chip: Chip
    rates: Literal["published", "measured"]


def machine(topology: Topology) -> Machine:
    """Devices and rates of a topology. Raises ConfigError when they cannot be had."""
    if topology.generation == "cpu":
        found = jax.devices("cpu")[: topology.chips]
        if len(found) < topology.chips:
            raise ConfigError(
                f"--topology={topology.name}: JAX simulates {len(found)} devices here; do not set XLA_FLAGS"
            )
        return Machine(topology, found, measure(found), "measured")
    try:
        found = topologies.get_topology_desc(
            platform="tpu", topology_name=topology.name, **topology.options
        ).devices
    except jax.errors.JaxRuntimeError as error:
        raise ConfigError(
            f"--topology={topology.name}: libtpu knows no such slice ({_first_line(error)})"
        ) from error
    return Machine(topology, list(found), CHIPS[found[0].device_kind], "published")


def slice_of(device: jax.Device, topology: Topology) -> int:
    """Which slice a device is in."""
    return device.slice_index if topology.slices > 1 else 0


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0]
