"""A machine that is only rates, for plans that compile nothing."""

from e5jax.hardware import CHIPS
from e5jax.plan.machine import Machine
from e5jax.plan.topology import parse_topology


def machine(room: float = 1.0, links: float = 1.0) -> Machine:
    """Four chips like a v5e with so much more memory, and so much faster links."""
    chip = CHIPS["TPU v5 lite"]
    chip = chip._replace(limit=chip.limit * room, interconnect=chip.interconnect * links)
    return Machine(parse_topology("v5e:2x2"), [], chip, "published")
