"""Movement of data between devices: what kind, how much, among which devices, along which mesh axis."""

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from e5jax.mesh import AXES
from e5jax.plan.hlo import Computation, Instruction

KINDS = (
    "all-gather",
    "reduce-scatter",
    "all-reduce",
    "all-to-all",
    "collective-permute",
    "collective-broadcast",
)
Groups = tuple[tuple[int, ...], ...]


class Collective(NamedTuple):
    """One collective operation. `size` is the whole array in bytes: what a gather makes, what a reduction takes."""

    kind: str
    size: float
    groups: Groups  # devices that talk with one another, by their place in the mesh
    overlapped: bool  # the compiler lets it run beside other work

    @property
    def members(self) -> int:
        """Devices of a group."""
        return max(len(group) for group in self.groups)


def collective(
    made: Instruction, where: Computation, devices: int, *, overlapped: bool
) -> Collective | None:
    """What this instruction moves; None when it moves nothing."""
    if made.opcode == "send":
        return _between_slices(made, where, devices)
    kind = made.opcode.removesuffix("-start")
    if kind not in KINDS:
        return None
    # The asynchronous form of a gather gives (operands, results).
    taken = sum(operand.bytes for operand in where.operands(made))
    given = made.bytes - taken if made.opcode == "all-gather-start" else made.bytes
    groups = (
        pairs(made.attributes)
        if kind == "collective-permute"
        else read_groups(made.attributes, devices)
    )
    return Collective(
        kind,
        given if kind == "all-gather" else taken,
        groups,
        overlapped or made.opcode.endswith("-start"),
    )


def _between_slices(made: Instruction, where: Computation, devices: int) -> Collective | None:
    """Over several slices the compiler does a collective inside each, and hands what crosses to the hosts' network.

    Device numbers inside a slice start at 0 then, in every slice: those of the mesh's first slice.
    """
    said = dict(
        re.findall(
            r'_xla_megascale_(\w+)="([^"]*)"', made.attributes.get("frontend_attributes", "")
        )
    )
    if "transfer_type" not in said:
        return None
    kind = said["transfer_type"].lower().replace("_", "-")
    slices = len(_numbers(said["target"].partition("x")[0]))
    payload = where.operands(made)[0].bytes
    size = payload * slices if kind == "all-gather" else payload
    group = tuple(range(0, devices, devices // slices))
    return Collective(
        kind if kind in KINDS else "collective-permute", size, (group,), overlapped=True
    )


def wire_bytes(kind: str, size: float, members: int) -> float:
    """Bytes that each device receives, by the best known (ring) algorithms."""
    if members == 1:
        return 0.0
    if kind in ("collective-permute", "collective-broadcast"):
        return size
    return size * (members - 1) / members * (2 if kind == "all-reduce" else 1)


def axis_of(groups: Groups, mesh: tuple[int, ...]) -> str:
    """The mesh axes along which the devices of a group differ, such as `fsdp` or `data+fsdp`."""
    places = [np.unravel_index(np.asarray(group), mesh) for group in groups]
    return "+".join(
        axis
        for number, axis in enumerate(AXES)
        if any(len(set(place[number])) > 1 for place in places)
    )


def pairs(attributes: Mapping[str, str]) -> Groups:
    """`source_target_pairs={{0,1},{1,0}}` without those that stay."""
    found = re.findall(r"\{(\d+),(\d+)\}", attributes["source_target_pairs"])
    return tuple((int(a), int(b)) for a, b in found if a != b) or ((0,),)


def read_groups(attributes: Mapping[str, str], devices: int) -> Groups:
    """`{{0,1},{2,3}}`, `[2,4]<=[4,2]T(1,0)` or `mesh['a'=2,'b'=4], device_ids=([4,2]T(1,0)) {'a'}`; empty is everybody."""
    text = attributes.get("replica_groups", "")
    if text.startswith("mesh"):
        return _mesh_groups(text, attributes.get("device_ids", ""), devices)
    if text.startswith("["):
        shape, _, order = text.partition("<=")
        return _rows(_order(order).reshape(_numbers(shape)))
    listed = [_numbers(group) for group in re.findall(r"\{([\d, ]+)\}", text)]
    return tuple(tuple(group) for group in listed) or (tuple(range(devices)),)


def _mesh_groups(text: str, ids: str, devices: int) -> Groups:
    if ":(" in ids + text:
        raise ValueError(f"replica groups over a part of an axis are not read yet: {text} {ids}")
    names = dict(re.findall(r"'(\w+)'=(\d+)", text))
    sizes = [int(size) for size in names.values()]
    chosen = re.findall(r"'(\w+)'", (ids or text).rpartition("{")[2])
    order = _order(ids.partition("(")[2].rpartition(")")[0]) if ids else np.arange(devices)
    along = [list(names).index(name) for name in chosen]
    grid = np.moveaxis(order.reshape(sizes), along, range(-len(along), 0))
    return _rows(grid.reshape(-1, int(np.prod([sizes[axis] for axis in along]))))


def _order(text: str) -> np.ndarray:
    """`[4,2]T(1,0)`: 0, 1, 2, … in that shape, transposed, in a row."""
    shape, _, turn = text.partition("T")
    numbers = np.arange(np.prod(_numbers(shape))).reshape(_numbers(shape))
    return (numbers.transpose(_numbers(turn)) if turn else numbers).reshape(-1)


def _numbers(text: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", text)]


def _rows(grid: np.ndarray) -> Groups:
    return tuple(tuple(int(device) for device in row) for row in grid)


def across(groups: Groups, slices: Sequence[int]) -> int:
    """How many slices a group reaches into; `slices` is each device's slice."""
    return max(len({slices[device] for device in group}) for group in groups)
