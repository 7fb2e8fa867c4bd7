"""How long a step takes at best: each operation against the rates of the chip.

    on the chip   sum over operations of max(FLOPs / peak, bytes / memory bandwidth): they run one after the other
    network       bytes each device receives / the rate of its links, all of them; between slices, of the data-center network
    step          max(on the chip, network that the compiler overlaps) + network that it does not

The rates are peaks, so this is a bound from below: what no tuning gets under.
"""

from collections.abc import Sequence
from typing import NamedTuple

from e5jax.hardware import Chip
from e5jax.plan.collectives import Collective, across, axis_of, wire_bytes
from e5jax.plan.costs import Operation, total_flops


class Roofline(NamedTuple):
    """Seconds of one step."""

    compute: float  # FLOPs at peak
    memory: float  # main-memory traffic at its bandwidth
    network: float  # all collectives
    on_chip: float  # compute and memory, the slower one operation by operation
    exposed: float  # the part of the network that nothing overlaps
    step: float

    @property
    def bound(self) -> str:
        """Which of the three takes longest."""
        return max(("compute", "memory", "network"), key=lambda name: getattr(self, name))


def roofline(done: Sequence[Operation], chip: Chip, slices: Sequence[int]) -> Roofline:
    """Times a program; `slices` is the slice of each device, in mesh order."""
    compute = total_flops(done) / chip.flops
    memory = sum(one.times * one.bytes for one in done) / chip.bandwidth
    on_chip = sum(
        one.times * max(one.flops / chip.flops, one.bytes / chip.bandwidth) for one in done
    )
    moved = [
        (one.times * seconds(part, chip, slices), part.overlapped)
        for one in done
        for part in one.collectives
    ]
    exposed = sum(time for time, overlapped in moved if not overlapped)
    network = sum(time for time, _ in moved)
    return Roofline(
        compute, memory, network, on_chip, exposed, max(on_chip, network - exposed) + exposed
    )


def seconds(part: Collective, chip: Chip, slices: Sequence[int]) -> float:
    """One collective. Over slices it is done inside each first, and only each device's share crosses between them."""
    outer = across(part.groups, slices)
    inner = max(1, part.members // outer)
    inside = wire_bytes(part.kind, part.size, inner) / chip.interconnect
    return inside + wire_bytes(part.kind, part.size / inner, outer) / chip.datacenter


def traffic(done: Sequence[Operation], mesh: tuple[int, ...]) -> dict[str, dict[str, float]]:
    """Bytes that each device receives in a step, by kind of collective and mesh axis."""
    found: dict[str, dict[str, float]] = {}
    for one in done:
        for part in one.collectives:
            amount = one.times * wire_bytes(part.kind, part.size, part.members)
            if amount:
                axes = found.setdefault(part.kind, {})
                axis = axis_of(part.groups, mesh)
                axes[axis] = axes.get(axis, 0.0) + amount
    return found
