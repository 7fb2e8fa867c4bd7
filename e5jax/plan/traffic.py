"""Main-memory traffic of single instructions: an estimate.

Each instruction that is not fused into another reads its operands and writes its result. Refined where that would be far
off: a slice reads only what it takes, an update in place writes only what it changes, what passes through a fusion
untouched costs nothing, and neither does what lives in on-chip memory.
"""

from e5jax.plan.hlo import Computation, Instruction, Module, Shape

# No data moves: names for values, control, and the second half of an asynchronous pair.
FREE = frozenset(
    {
        "parameter",
        "constant",
        "tuple",
        "get-tuple-element",
        "bitcast",
        "after-all",
        "partition-id",
        "replica-id",
        "domain",
    }
    | {
        "opt-barrier",
        "optimization-barrier",
        "while",
        "conditional",
        "call",
        "iota",
        "async-start",
        "send",
        "recv",
    }
)
FREE_CALLS = frozenset(
    {"AllocateBuffer", "ConcatBitcast", "AsyncCollectiveStart", "AsyncCollectiveDone"}
)
_SLICES = ("dynamic-slice", "slice", "gather", "slice-start")
_UPDATES = ("dynamic-update-slice", "dynamic-update-slice-start", "scatter")
_VIEWS = ("bitcast", "reshape")  # other names for the same bytes


def memory_bytes(module: Module, where: Computation, made: Instruction) -> float:
    """Bytes that one run reads from and writes to main memory."""
    if is_free(made):
        return 0.0
    if made.opcode == "fusion":
        return _fusion(module, where, made)
    operands = where.operands(made)
    if made.opcode in _UPDATES:
        target, change = operands[0].shapes, operands[_changed(made)].shapes
        return _in_memory(change) + (_in_memory(target) and sum(shape.bytes for shape in change))
    if made.opcode in _SLICES:
        taken = min(made.shapes, key=lambda shape: shape.bytes if shape.bytes > 4 else float("inf"))
        return (_in_memory(operands[0].shapes[:1]) and taken.bytes) + _in_memory((taken,))
    # The asynchronous form names its operands in its result again.
    results = made.shapes[:1] if made.opcode == "copy-start" else made.shapes
    return _in_memory(results) + sum(_in_memory(operand.shapes) for operand in operands)


def is_free(made: Instruction) -> bool:
    """True for what only names values or waits."""
    waits = made.opcode.endswith(("-done", "-update")) and made.opcode not in _UPDATES
    return (
        made.opcode in FREE
        or waits
        or made.attributes.get("custom_call_target", "").strip('"') in FREE_CALLS
    )


def _fusion(module: Module, where: Computation, made: Instruction) -> float:
    inner = module.computations[made.called[0]]
    read = sum(
        _read(module, inner, parameter.name, shape.bytes)
        for parameter, operand in zip(inner.parameters(), where.operands(made), strict=True)
        for shape in operand.shapes
        if shape.space == 0
    )
    root = inner.instructions[inner.root]
    results = inner.operands(root) if root.opcode == "tuple" else [root]
    if len(results) != len(made.shapes):
        results = [root] * len(made.shapes)
    return read + sum(
        min(shape.bytes, _written(module, inner, result, shape.bytes))
        for shape, result in zip(made.shapes, results, strict=True)
        if shape.space == 0
    )


def _read(module: Module, inner: Computation, name: str, whole: float) -> float:
    """Bytes of an argument that a fused computation looks at."""
    return min(
        whole, sum(_looked_at(module, inner, user, name, whole) for user in _users(inner, name))
    )


def _looked_at(
    module: Module, inner: Computation, user: Instruction, name: str, whole: float
) -> float:
    if user.opcode in _SLICES and user.operands[0] == name:
        return user.bytes
    if user.opcode in _VIEWS:
        return _read(module, inner, user.name, whole)
    if user.opcode in ("copy", "convert"):
        return whole * _wanted(module, inner, user)
    if user.opcode == "fusion":
        within = module.computations[user.called[0]]
        numbers = [number for number, operand in enumerate(user.operands) if operand == name]
        looked_at = max(
            _read(module, within, within.parameters()[number].name, whole) for number in numbers
        )
        return looked_at * _wanted(module, inner, user)
    passes = (
        user.opcode == "tuple"
        or is_free(user)
        or (user.opcode in _UPDATES and user.operands[0] == name)
    )
    moved = user.opcode.startswith(
        ("all-", "reduce-scatter", "collective-")
    )  # counted as the collective that it is
    return 0.0 if passes or moved else whole


def _wanted(module: Module, inner: Computation, made: Instruction) -> float:
    """Share of a value that a fused computation makes: all of what it returns, and else what those look at who use it.

    Stacked integer kernels are laid out anew as a whole and then cut to one layer, in the text of the program.
    """
    if made.name == inner.root or len(made.shapes) > 1 or not made.bytes:
        return 1.0
    shares = (
        _wanted(module, inner, user)
        if user.opcode in (*_VIEWS, "tuple")
        else _looked_at(module, inner, user, made.name, made.bytes) / made.bytes
        for user in _users(inner, made.name)
    )
    return min(1.0, sum(shares))


def _written(module: Module, inner: Computation, result: Instruction, whole: float) -> float:
    """Bytes of a result that a fused computation really writes."""
    if result.opcode in _UPDATES:
        return inner.operands(result)[_changed(result)].bytes
    if result.opcode in _VIEWS:
        return _written(module, inner, inner.operands(result)[0], whole)
    if result.opcode == "fusion":
        within = module.computations[result.called[0]]
        return _written(module, within, within.instructions[within.root], whole)
    passes = (
        result.opcode == "parameter"
        or is_free(result)
        or result.opcode.startswith(("all-", "collective-"))
    )
    return 0.0 if passes and result.opcode not in ("constant", "iota") else whole


def _users(inner: Computation, name: str) -> list[Instruction]:
    return [made for made in inner.instructions.values() if name in made.operands]


def _changed(update: Instruction) -> int:
    """Which operand holds what an update writes."""
    return len(update.operands) - 1 if update.opcode == "scatter" else 1


def _in_memory(shapes: tuple[Shape, ...]) -> float:
    return sum(shape.bytes for shape in shapes if shape.space == 0)
