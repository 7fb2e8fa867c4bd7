"""What a step's time is made of: the two steps of the quickstart on this CPU, traced, read and added up.

.venv/bin/python benchmarks/steps.py [--data=DIR] [--steps=3] [--top=12] [--output=FILE]

Shapes and data are those of configs/quickstart.py, weights are random. `--data` is a folder that a data stage has made;
without it pairs are harvested anew. While traced a step takes up to twice as long, products included, whatever is recorded:
it is timed without the profiler as well, and shares are those of the traced step.

Every moment of a traced step belongs to the operations that run in it, in equal parts when several run side by side on
other threads; a loop or a branch counts only while nothing inside it runs. So shares add up to the wall time of the step,
and a product that keeps all cores busy weighs as much as a copy on one core that takes as long. A fused operation has
the scope of its last part. On accelerators xprof shows these figures itself (docs/profiling.md).

Kinds. Products: with a matrix product inside. Attention: whatever is in the scope `kernel`, its small products too. Moves:
copies, slices, fills, transposes and nothing else. Elementwise: the rest, reductions as well.
"""

import argparse
import json
import re
import statistics
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import jax

from e5jax.config import Training
from e5jax.config.load import load
from e5jax.data.batches import batches_of
from e5jax.data.tokenizer import TextTokenizer
from e5jax.mesh import make_mesh, open_cpu
from e5jax.pipeline import build_data
from e5jax.plan.hlo import Instruction, Module, parse
from e5jax.train import state
from e5jax.train.build import abstract_arguments, build_step, put_batch
from e5jax.train.inputs import BOS, EOS, scratch_spec
from e5jax.workdir.directory import Workdir

CONFIG = Path(__file__).parents[1] / "configs" / "quickstart.py"
OUTER = (
    "kept",
    "again",
    "layers",
)  # scopes around others: what has no other is their own work, of keeping and fetching
SCOPES = (
    *OUTER,
    "embed",
    "attention",
    "kernel",
    "ff",
    "norm",
    "pool",
    "loss",
    "gather",
    "scores",
    "update",
)
MOVES = {
    "parameter",
    "constant",
    "tuple",
    "get-tuple-element",
    "bitcast",
    "copy",
    "transpose",
    "reshape",
    "broadcast",
    "iota",
}
MOVES |= {
    "slice",
    "dynamic-slice",
    "dynamic-update-slice",
    "concatenate",
    "pad",
    "reverse",
    "gather",
}
INDICES = {
    "add",
    "compare",
    "select",
    "clamp",
    "convert",
    "subtract",
}  # beside a move, on whole numbers, they are part of it
AROUND = {"while", "conditional", "call"}
NETWORK = ("all-gather", "all-reduce", "reduce-scatter", "collective-permute", "all-to-all")
MARK = "traced step"


class Operation(NamedTuple):
    """An instruction of the compiled step."""

    kind: str
    phase: str
    what: str  # shape and origin, for people


class Event(NamedTuple):
    """An operation at work, or None for the step as a whole; nanoseconds."""

    start: float
    end: float
    name: str | None


def main() -> None:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--data", type=Path)
    options.add_argument("--steps", type=int, default=3)
    options.add_argument("--top", type=int, default=12)
    options.add_argument("--output", type=Path)
    args = options.parse_args()
    config = load(str(CONFIG))
    assert config.pretrain is not None, "the quickstart has two stages"
    open_cpu([config, config.pretrain])
    with tempfile.TemporaryDirectory() as folder:
        work = Workdir(Path(folder))
        if args.data is None:
            build_data(config, work)
        data = args.data or work.data
        found = {}
        for name, run in [("from scratch", config.pretrain), ("LoRA", config)]:
            found[name] = measure(run, config.pretrain, data, args.steps, Path(folder) / name)
            show(name, found[name], args.top)
    if args.output:
        args.output.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


def measure(run: Training, scratch: Training, data: Path, steps: int, folder: Path) -> dict:
    """Seconds of a step without and with the profiler, and the shares of the traced ones."""
    program, go = prepare(run, scratch, data, steps)
    go()  # warms up
    plain = go()
    # Python's own calls are of no interest here, and tracing them slows the step down.
    options = jax.profiler.ProfileOptions()
    options.python_tracer_level = 0
    with jax.profiler.trace(folder, profiler_options=options):
        traced = go()
    (file,) = folder.rglob("*.xplane.pb")
    operations = dict(read(parse(program)))
    events = list(trace(file, operations))
    spent = share_out(
        events, {name for name, operation in operations.items() if operation.kind == "loops"}
    )
    runs, wall = Counter(event.name for event in events), sum(spent.values())
    return {
        "seconds": statistics.median(plain),
        "traced_seconds": statistics.median(traced),
        "kinds": shares(spent, lambda name: operations[name].kind if name else "idle"),
        "phases": shares(spent, lambda name: operations[name].phase if name else "idle"),
        "operations": [
            {
                "name": name,
                "share": nanoseconds / wall,
                "runs": runs[name] / steps,
                **operations[name]._asdict(),
            }
            for name, nanoseconds in sorted(spent.items(), key=lambda item: -item[1])
            if name and operations[name].kind != "loops"
        ],
    }


def prepare(
    run: Training, scratch: Training, data: Path, steps: int
) -> tuple[str, Callable[[], list[float]]]:
    """The compiled program as text, and what takes some steps and says how long each took."""
    spec = scratch_spec(scratch, data / "tokenizer.json")
    tokenizer = TextTokenizer.from_file(data / "tokenizer.json", BOS, EOS, run.tokens.limit)
    batches = batches_of([data / "train.jsonl"], tokenizer, run)
    mesh = make_mesh(run.mesh)
    with jax.set_mesh(mesh):
        learner = build_step(run, spec, jax.default_backend())
        made = learner.model_def
        numbers = made.initialise(made.leaves, mesh, 0)
        frozen = {name: numbers[name] for name in made.frozen}
        current = state.fresh(
            {name: numbers[name] for name in made.trained}, learner.optimiser, mesh
        )
        placed = [
            put_batch(batch, mesh) for batch in batches.slice(slice(0, steps)).to_iter_dataset()
        ]
        step = learner.step.lower(*abstract_arguments(run, learner, mesh)).compile()
    text = step.as_text()
    assert text is not None, "every backend prints its program"

    def go() -> list[float]:
        nonlocal current
        taken = []
        for batch in placed:
            with jax.set_mesh(mesh), jax.profiler.TraceAnnotation(MARK):
                start = time.perf_counter()
                current, metrics = step(current, frozen, batch)
                jax.block_until_ready((current, metrics))
                taken.append(time.perf_counter() - start)
        return taken

    return text, go


def read(module: Module) -> Iterator[tuple[str, Operation]]:
    """Every instruction of the program by name; names are unique in it."""
    for computation in module.computations.values():
        for name, made in computation.instructions.items():
            origin = re.search(r'op_name="([^"]*)"', made.attributes.get("metadata", ""))
            path = origin[1] if origin else ""
            scopes = scopes_of(path)
            shape = (
                f"{made.shapes[0].dtype}[{','.join(map(str, made.shapes[0].dims))}]"
                if made.shapes
                else ""
            )
            kind = (
                "attention"
                if "kernel" in scopes and made.opcode not in AROUND
                else kind_of(made, module)
            )
            yield (
                name,
                Operation(kind, phase_of(scopes), f"{shape} {path.rpartition('/')[2]}".strip()),
            )


def scopes_of(path: str) -> list[str]:
    """Our scopes in `jit(step)/transpose(jvp(chunks))/while/body/attention/dot_general`; the last part is a primitive."""
    found = re.split(r"[/()]+", path.partition(":")[0].rpartition("/")[0])
    return [scope for scope in dict.fromkeys(found) if scope in SCOPES]


def phase_of(scopes: list[str]) -> str:
    inner = [scope for scope in scopes if scope not in OUTER]
    return "/".join(inner) or (scopes[-1] if scopes else "elsewhere")


def kind_of(made: Instruction, module: Module) -> str:
    """By what is inside."""
    if made.opcode in AROUND:
        return "loops"
    if made.opcode.startswith(NETWORK):
        return "network"
    inside = list(within(made, module))
    opcodes = {part.opcode for part in inside}
    if opcodes & {"dot", "convolution"} or made.name.startswith(("dot", "ynn")):
        return "products"
    whole = {
        part.opcode for part in inside if part.shapes and part.shapes[0].dtype[0] in "sup"
    }  # integers and truth
    return (
        "moves"
        if opcodes <= MOVES | (whole & INDICES if opcodes & MOVES else set())
        else "elementwise"
    )


def within(made: Instruction, module: Module) -> Iterator[Instruction]:
    """What a fusion is made of, or the instruction itself."""
    if made.opcode != "fusion":
        yield made
    for name in made.called if made.opcode == "fusion" else ():
        for part in module.computations[name].instructions.values():
            yield from within(part, module)


def trace(file: Path, operations: dict[str, Operation]) -> Iterator[Event]:
    """The program's operations and the marks around the steps."""
    for plane in jax.profiler.ProfileData.from_file(str(file)).planes:
        for line in plane.lines:
            for event in line.events:
                if event.name == MARK or event.name in operations:
                    yield Event(
                        event.start_ns, event.end_ns, None if event.name == MARK else event.name
                    )


def share_out(events: list[Event], around: set[str]) -> dict[str | None, float]:
    """Nanoseconds of each operation; those of None are the moments of a step in which nothing ran."""
    edges = sorted(
        [(event.start, 1, event.name) for event in events]
        + [(event.end, -1, event.name) for event in events]
    )
    running: Counter[str | None] = Counter()
    spent: dict[str | None, float] = defaultdict(float)
    before = 0.0
    for now, change, name in edges:
        layers = (
            [one for one in running if one and one not in around],
            [one for one in running if one],
            list(running),
        )
        innermost = next((layer for layer in layers if layer), [])
        total = sum(running[one] for one in innermost)
        for one in innermost:
            spent[one] += (now - before) * running[one] / total
        before = now
        running[name] += change
        if not running[name]:
            del running[name]
    return spent


def shares(spent: dict[str | None, float], group: Callable[[str | None], str]) -> dict[str, float]:
    """Shares of the wall time, largest first."""
    found, wall = defaultdict(float), sum(spent.values())
    for name, nanoseconds in spent.items():
        found[group(name)] += nanoseconds / wall
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def show(name: str, found: dict, top: int) -> None:
    print(
        f"\n{name}: {found['seconds']:.2f} s a step, {found['traced_seconds']:.2f} s while traced\n"
    )
    for title in ("kinds", "phases"):
        print(f"| {title[:-1]} | share |\n|---|---|")
        print(
            "\n".join(
                f"| {key} | {share:.1%} |" for key, share in found[title].items() if share >= 0.0005
            ),
            end="\n\n",
        )
    print("| operation | runs a step | share | kind | phase | result |\n|---|---|---|---|---|---|")
    for one in found["operations"][:top]:
        print(
            f"| {one['name']} | {one['runs']:.0f} | {one['share']:.1%} | {one['kind']} | {one['phase']} | `{one['what']}` |"
        )
    largest = next(one for one in found["operations"] if one["kind"] != "products")
    verdict = "above" if largest["share"] > 0.1 else "not above"
    print(
        f"\nLargest operation that is no product: {largest['name']}, {largest['share']:.1%}, {verdict} 10 % of the step."
    )


if __name__ == "__main__":
    main()
