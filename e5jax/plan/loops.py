"""How often a loop of a compiled program runs.

The CPU compiler writes the number into the program. The TPU compiler does not: there it follows from the loop's condition
and from what one round of its body adds, which is 1 for a scan and 2 for an unrolled windowed einsum.
"""

import json
from collections.abc import Callable
from typing import NamedTuple

from e5jax.plan.hlo import Computation, Instruction, Module

_SAME = ("copy", "bitcast", "convert", "reshape", "copy-start", "copy-done", "optimization-barrier")
_ARITHMETIC: dict[str, Callable[[int, int], int]] = {
    "add": lambda a, b: a + b,
    "subtract": lambda a, b: a - b,
    "multiply": lambda a, b: a * b,
    "maximum": max,
    "minimum": min,
}


class Scope(NamedTuple):
    """A computation and what is known of its arguments: (number, element of a tuple) -> integer."""

    module: Module
    computation: Computation
    argument: Callable[[int, int | None], int | None]

    def value(self, name: str, element: int | None = None) -> int | None:
        """The integer that an instruction gives, or that an element of its tuple is; None when that is not known."""
        made = self.computation.instructions[name]
        if made.opcode == "constant":
            return _integer(made.literal)
        if made.opcode == "parameter":
            return self.argument(int(made.literal), element)
        if made.opcode in _ARITHMETIC:
            a, b = (self.value(operand) for operand in made.operands)
            return None if a is None or b is None else _ARITHMETIC[made.opcode](a, b)
        if made.opcode in ("fusion", "call"):
            inner = self.enter(made)
            return inner.value(inner.computation.root, element)
        return self._behind(made, element)

    def _behind(self, made: Instruction, element: int | None) -> int | None:
        """The value that an instruction hands on."""
        if made.opcode == "get-tuple-element":
            return self.value(made.operands[0], int(made.attributes["index"]))
        if made.opcode == "tuple" and element is not None:
            return self.value(made.operands[element])
        return self.value(made.operands[0], element) if made.opcode in _SAME else None

    def enter(self, made: Instruction) -> "Scope":
        """The computation that a fusion or call runs, with its arguments."""
        return Scope(
            self.module,
            self.module.computations[made.called[0]],
            lambda n, e: self.value(made.operands[n], e),
        )

    def body(self, loop: Instruction) -> "Scope":
        """A loop's body; of what it carries only what no round changes is known."""

        def before(_: int, element: int | None) -> int | None:
            return self.value(loop.operands[0], element)

        first = Scope(
            self.module, self.module.computations[loop.attributes["body"].lstrip("%")], before
        )

        def carried(number: int, element: int | None) -> int | None:
            start = before(number, element)
            return start if start == first.value(first.computation.root, element) else None

        return Scope(self.module, first.computation, carried)


def trips(scope: Scope, loop: Instruction) -> int | None:
    """Rounds of a `while`; None when the program does not tell."""
    known = json.loads(loop.attributes.get("backend_config", "{}")).get("known_trip_count")
    if known:
        return int(known["n"])
    bodies = {
        part: scope.module.computations[loop.attributes[part].lstrip("%")]
        for part in ("condition", "body")
    }

    def before(_: int, element: int | None) -> int | None:
        return scope.value(loop.operands[0], element)

    def after(_: int, element: int | None) -> int | None:
        return Scope(scope.module, bodies["body"], before).value(bodies["body"].root, element)

    start, following = (
        _gap(Scope(scope.module, bodies["condition"], state)) for state in (before, after)
    )
    if start is None or following is None:
        return None
    return _rounds(start.direction, start.size, following.size - start.size)


class _Gap(NamedTuple):
    """The comparison that a loop goes on by: `size` is its left side less its right."""

    direction: str
    size: int


def _gap(scope: Scope) -> _Gap | None:
    root = scope.computation.instructions[scope.computation.root]
    if root.opcode in ("fusion", "call"):
        return _gap(scope.enter(root))
    if root.opcode != "compare":
        return None
    left, right = (scope.value(name) for name in root.operands)
    return (
        None if left is None or right is None else _Gap(root.attributes["direction"], left - right)
    )


def _rounds(direction: str, gap: int, step: int) -> int | None:
    """Rounds until a gap that grows by `step` no longer satisfies the direction."""
    if direction in ("GT", "GE"):
        direction, gap, step = {"GT": "LT", "GE": "LE"}[direction], -gap, -step
    if direction == "NE" and step and gap % step == 0 and -gap // step >= 0:
        return -gap // step
    if direction == "LE":
        direction, gap = "LT", gap - 1
    if direction != "LT" or step <= 0:
        return None
    return max(0, -(gap // step))


def _integer(literal: str) -> int | None:
    try:
        return int(literal)
    except ValueError:  # a float, an array, true
        return None
