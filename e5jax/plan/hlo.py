"""Reads the text of a compiled program (`compiled.as_text()`, HLO) into computations of instructions.

    text -> Module -> Computation -> Instruction -> Shape

The grammar is XLA's HLO text: one instruction a line, `name = type opcode(operands), attribute=value, ...`.
"""

import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

_ARRAY = re.compile(r"([a-z]\w*)\[([\d,]*)\](?:\{([^}]*)\})?")  # bf16[7,128]{1,0:T(8,128)(2,1)S(1)}
_SPACE = re.compile(r"S\((\d+)\)")
_OPEN, _CLOSE = "([{", ")]}"


class Shape(NamedTuple):
    """An array type. `space` 0 is the device's main memory; others are on the chip (TPU: vector, scalar memory)."""

    dtype: str
    dims: tuple[int, ...]
    space: int

    @property
    def size(self) -> int:
        """Elements."""
        product = 1
        for dim in self.dims:
            product *= dim
        return product

    @property
    def bytes(self) -> float:
        """Without the padding of tiles."""
        if self.dtype == "pred":
            return self.size
        bits = re.search(r"\d+", self.dtype)  # bf16, s32, f8e4m3fn; tokens have none
        return self.size * int(bits[0]) / 8 if bits else 0


class Instruction(NamedTuple):
    """One operation. `shapes` are those of its result, one for each element of a tuple."""

    name: str
    opcode: str
    shapes: tuple[Shape, ...]
    operands: tuple[str, ...]
    attributes: Mapping[str, str]
    literal: str  # what stands in the parentheses

    @property
    def bytes(self) -> float:
        """Of the result."""
        return sum(shape.bytes for shape in self.shapes)

    @property
    def called(self) -> tuple[str, ...]:
        """Names of the computations that a fusion, call or conditional runs."""
        names = (
            "calls",
            "to_apply",
            "true_computation",
            "false_computation",
            "branch_computations",
        )
        return tuple(
            one
            for name in names
            if name in self.attributes
            for one in _names(self.attributes[name])
        )


class Computation(NamedTuple):
    """Instructions by name, in the order in which they run."""

    name: str
    instructions: Mapping[str, Instruction]
    root: str

    def operands(self, of: Instruction) -> list[Instruction]:
        """The instructions whose results this one takes."""
        return [self.instructions[name] for name in of.operands]

    def parameters(self) -> list[Instruction]:
        """In the order of the arguments."""
        return sorted(
            (i for i in self.instructions.values() if i.opcode == "parameter"),
            key=lambda i: int(i.literal),
        )


class Module(NamedTuple):
    """A whole program."""

    computations: Mapping[str, Computation]
    entry: str


def parse(text: str) -> Module:
    """Reads a module. Raises ValueError when the text has no entry computation."""
    computations, entry = {}, None
    for header, lines in _blocks(text):
        name = _names(header.removeprefix("ENTRY ").split(" ", 1)[0])[0]
        entry = name if header.startswith("ENTRY ") else entry
        pairs = [(line.lstrip().startswith("ROOT "), _instruction(line)) for line in lines]
        root = next((made.name for is_root, made in pairs if is_root), pairs[-1][1].name)
        computations[name] = Computation(name, {made.name: made for _, made in pairs}, root)
    if entry is None:
        raise ValueError("not an HLO module: it has no ENTRY computation")
    return Module(computations, entry)


def _blocks(text: str) -> Iterator[tuple[str, list[str]]]:
    """Each computation's first line and its instructions. The metadata of a kernel goes on over several lines."""
    header, lines = "", []
    for line in text.splitlines():
        if line == "}" or line.startswith("}, "):
            if header:
                yield header, lines
            header = ""
        elif not header and line.endswith("{"):
            header, lines = line, []
        elif header and line.startswith(" "):
            lines.append(line)
        elif header:
            lines[-1] += line


def _instruction(line: str) -> Instruction:
    head, _, rest = line.partition(" = ")
    end = _closing(rest, 0) + 1 if rest.startswith("(") else rest.index(" ")
    opcode, _, tail = rest[end:].lstrip().partition("(")
    close = _closing(f"({tail}", 0) - 1
    literal = tail[:close]
    operands = () if opcode in ("constant", "parameter", "iota") else tuple(_names(literal))
    return Instruction(
        name=_names(head.split()[-1])[0],
        opcode=opcode,
        shapes=tuple(_shape(found) for found in _ARRAY.finditer(rest[:end])),
        operands=operands,
        attributes=dict(_attributes(tail[close + 1 :])),
        literal=literal,
    )


def _shape(found: re.Match[str]) -> Shape:
    dtype, dims, layout = found.groups()
    space = _SPACE.search(layout or "")
    return Shape(
        dtype, tuple(int(dim) for dim in dims.split(",") if dim), int(space[1]) if space else 0
    )


def _names(text: str) -> list[str]:
    """Names in `%a, /*index=5*/%b` or `{%a, %b}`, without their percent signs."""
    bare = re.sub(r"/\*.*?\*/", "", text).strip("{} ")
    return [part.split()[-1].lstrip("%") for part in bare.split(",") if part.strip()]


def _attributes(text: str) -> Iterator[tuple[str, str]]:
    for part in _split(text):
        key, equals, value = part.strip().partition("=")
        if equals:
            yield key, value


def _split(text: str) -> Iterator[str]:
    """Cuts at the commas that stand outside of brackets and quotes."""
    depth, start, quoted = 0, 0, False
    for place, letter in enumerate(text):
        if letter == '"':
            quoted = not quoted or text[place - 1] == "\\"
        elif quoted:
            continue
        elif letter in _OPEN:
            depth += 1
        elif letter in _CLOSE:
            depth -= 1
        elif letter == "," and depth == 0:
            yield text[start:place]
            start = place + 1
    yield text[start:]


def _closing(text: str, start: int) -> int:
    """Place of the bracket that closes the one at `start`."""
    depth = 0
    for place in range(start, len(text)):
        depth += (text[place] in _OPEN) - (text[place] in _CLOSE)
        if depth == 0:
            return place
    raise ValueError(f"unbalanced: {text[:80]}")
