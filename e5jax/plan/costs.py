"""What a compiled program does: its operations, each with how often it runs.

The compiler's own `cost_analysis()` counts a loop's body once. Here loops are multiplied by their rounds, and of a
conditional the dearer branch is taken in a given share of runs: an empty chunk of a batch costs next to nothing.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from e5jax.plan.collectives import Collective, collective
from e5jax.plan.hlo import Computation, Instruction, Module
from e5jax.plan.loops import Scope, trips
from e5jax.plan.products import flops
from e5jax.plan.traffic import FREE_CALLS, memory_bytes

# Calls into the compiler's own library that multiply nothing.
_WITHOUT_PRODUCTS = frozenset(
    {
        "AssumeGatherIndicesInBound",
        "GatherScatterIndicesBitpacked",
        "Sharding",
        "TopK",
        "PartialReduce",
        "ZeroCrop",
    }
)


class Operation(NamedTuple):
    """One instruction of the program on one device; `flops`, `bytes` and collectives are those of a single run."""

    name: str
    opcode: str
    times: float
    flops: float
    bytes: float  # main memory, estimated
    collectives: tuple[Collective, ...] = ()
    unknown: str = ""  # why its cost is not all there


def operations(
    module: Module, devices: int, shares: Mapping[str, float] | None = None
) -> list[Operation]:
    """Every operation of the program. `shares` is how often the conditionals of a named scope take their dearer branch."""
    entry = Scope(module, module.computations[module.entry], lambda *_: None)
    return list(_walk(entry, 1.0, devices, shares or {}))


def total_flops(done: Sequence[Operation]) -> float:
    """Products and convolutions of one step on one device."""
    return sum(one.times * one.flops for one in done)


def _walk(
    scope: Scope, times: float, devices: int, shares: Mapping[str, float]
) -> Iterator[Operation]:
    seen: set[str] = set()  # channels: one asynchronous collective appears in several instructions
    for made in scope.computation.instructions.values():
        if made.opcode == "while":
            rounds = trips(scope, made)
            if rounds is None:
                yield Operation(
                    made.name, made.opcode, times, 0, 0, unknown="rounds unknown, counted once"
                )
            yield from _walk(
                scope.body(made), times * (1 if rounds is None else rounds), devices, shares
            )
        elif made.opcode == "conditional":
            yield from _branches(scope, made, times, devices, shares)
        elif made.opcode in ("call", "async-start"):
            yield from _walk(scope.enter(made), times, devices, shares)
        else:
            yield _operation(scope, made, times, devices, seen)


def _branches(
    scope: Scope, made: Instruction, times: float, devices: int, shares: Mapping[str, float]
) -> Iterator[Operation]:
    """The dearest branch in its share of the runs, always where nothing is known of it; the others in the rest."""
    name = made.attributes.get("metadata", "")
    active = next(
        (share for scope, share in shares.items() if re.search(rf"[(/]{scope}[)/]", name)), 1.0
    )
    scopes = [_branch(scope, made, number) for number in range(len(made.called))]
    ways = [list(_walk(branch, 1.0, devices, shares)) for branch in scopes]
    ways.sort(key=lambda way: (total_flops(way), sum(one.times * one.bytes for one in way)))
    rest = (1 - active) / max(len(ways) - 1, 1)
    for way, share in zip(ways, [rest] * (len(ways) - 1) + [active], strict=True):
        yield from (one._replace(times=one.times * times * share) for one in way)


def _branch(scope: Scope, made: Instruction, number: int) -> Scope:
    """A branch of a conditional; its argument is the operand behind the predicate of the same number."""
    given = made.operands[1 + number]
    return Scope(
        scope.module,
        scope.module.computations[made.called[number]],
        lambda _, element: scope.value(given, element),
    )


def _operation(
    scope: Scope, made: Instruction, times: float, devices: int, seen: set[str]
) -> Operation:
    inside = list(_inside(scope.module, scope.computation, made))
    moved = []
    for where, one in inside:
        found = collective(one, where, devices, overlapped=one is not made)
        # A collective of its own is one; the parts of an asynchronous one are spread over fusions under one channel.
        channel = one.name if one is made else one.attributes.get("channel_id", one.name)
        if found is not None and channel not in seen:
            seen.add(channel)
            moved.append(found)
    return Operation(
        name=made.name,
        opcode=made.opcode,
        times=times,
        flops=sum(flops(one, where) for where, one in inside),
        bytes=memory_bytes(scope.module, scope.computation, made),
        collectives=tuple(moved),
        unknown=next(
            (said for where, one in inside if (said := _unknown(one, flops(one, where)))), ""
        ),
    )


def _inside(
    module: Module, where: Computation, made: Instruction
) -> Iterator[tuple[Computation, Instruction]]:
    """The instruction itself, or all that a fusion is made of."""
    if made.opcode != "fusion":
        yield where, made
        return
    inner = module.computations[made.called[0]]
    for one in inner.instructions.values():
        yield from _inside(module, inner, one)


def _unknown(made: Instruction, counted: float) -> str:
    """Names a kernel whose FLOPs cannot be read."""
    target = made.attributes.get("custom_call_target", "").strip('"')
    known = not target or counted or target in FREE_CALLS | _WITHOUT_PRODUCTS
    return "" if known else f"{target}: FLOPs unknown, counted as 0"
