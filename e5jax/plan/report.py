"""One plan: compiles the training step of a run for a machine and says what it needs."""

import math
import re
import time
from typing import NamedTuple

import jax

from e5jax.config import Mesh, Training
from e5jax.config.validate import check_shards
from e5jax.mesh import AXES, make_mesh
from e5jax.model.quantise import check_groups
from e5jax.model.spec import Spec, check_divisible
from e5jax.plan.costs import operations, total_flops
from e5jax.plan.fill import Fill, Means, expected, full
from e5jax.plan.hlo import parse
from e5jax.plan.machine import Machine, slice_of
from e5jax.plan.roofline import Roofline, roofline, traffic
from e5jax.train.build import abstract_arguments, build_step
from e5jax.train.flops import model_flops

_UNITS = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


class Work(NamedTuple):
    """What the compiled program does in a step. Only a program that compiled has it."""

    flops: float  # products and convolutions, all chips together
    hbm_bytes: float  # main-memory traffic of a chip, estimated
    collectives: dict[str, dict[str, float]]  # bytes each chip receives, by kind and mesh axis
    seconds: Roofline
    notes: tuple[str, ...]  # what could not be counted
    to_host: float = 0.0  # bytes that a chip sends to its host; empty chunks are sent too
    from_host: float = 0.0  # bytes that it gets back; empty chunks are not


class Report(NamedTuple):
    """All that is known of a run on a machine. Bytes are those of one chip."""

    run: Training
    machine: Machine
    mesh: dict[str, int]
    memory: dict[str, float]  # by kind; `peak` is the compiler's figure
    refusal: str  # the compiler's own words when it ran out of memory
    model_flops: float  # what the mathematics needs, all chips together
    fill: Fill
    work: Work | None
    compile_seconds: float

    @property
    def fits(self) -> bool:
        return self.work is not None and self.memory["peak"] <= self.machine.chip.limit

    @property
    def texts(self) -> int:
        return self.run.batch.texts

    @property
    def flops_ratio(self) -> float | None:
        """FLOPs of the program over those that the mathematics needs: recomputation and padding."""
        return self.work.flops / self.model_flops if self.work else None


def plan(run: Training, spec: Spec, on: Machine, means: Means | None = None) -> Report:
    """Compiles the step. `means` are those of the texts' lengths; None: every text is as long as it may be.

    Raises ConfigError when the run does not fit the machine's number of chips.
    """
    mesh = make_mesh(run.mesh, on.devices)
    sizes: dict[str, int] = dict(zip(AXES, mesh.devices.shape, strict=True))
    check_divisible(spec, Mesh(**sizes))
    check_groups(spec, run.model.quantisation, Mesh(**sizes))
    check_shards(run.batch, sizes["data"] * sizes["fsdp"])
    start = time.perf_counter()
    learner = build_step(
        run,
        spec.changed(run.model)._replace(top=run.select.top, added=len(run.tokens.added)),
        on.devices[0].platform,
    )
    compiled, refusal, memory = None, "", {}
    with jax.set_mesh(mesh):
        arguments = abstract_arguments(run, learner, mesh)
        state, base, batch = arguments
        kinds = {
            "base": base,
            "trained": state.parameters,
            "moments": state.moments,
            "batch": batch,
        }
        memory |= {kind: _bytes(tree) for kind, tree in kinds.items()}
        try:
            compiled = learner.step.lower(*arguments).compile()
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            refusal = str(error)
    taken = time.perf_counter() - start
    found = (
        full(run.batch, run.tokens.limit)
        if means is None
        else expected(run.batch, run.tokens.limit, means)
    )
    needed = model_flops(learner.model_def, found.tokens, found.squared_lengths)
    memory |= refused(refusal) if compiled is None else _compiled(compiled, on.topology.generation)
    work = None if compiled is None else _work(compiled, on, mesh, found, memory["host"])
    return Report(run, on, sizes, memory, refusal, needed, found, work, taken)


def _work(
    compiled: jax.stages.Compiled, on: Machine, mesh: jax.sharding.Mesh, fill: Fill, host: float
) -> Work:
    text = compiled.as_text()
    assert text is not None, "a program just compiled has its text"
    done = operations(parse(text), mesh.size, fill.shares)
    slices = [slice_of(device, on.topology) for device in mesh.devices.flat]
    return Work(
        flops=total_flops(done) * mesh.size,
        hbm_bytes=sum(one.times * one.bytes for one in done),
        collectives=traffic(done, mesh.devices.shape),
        seconds=roofline(done, on.chip, slices),
        notes=tuple(sorted({one.unknown for one in done if one.unknown})),
        to_host=host,
        from_host=host * fill.shares.get("kept", 0),
    )


def _compiled(compiled: jax.stages.Compiled, platform: str) -> dict[str, float]:
    found = compiled.memory_analysis()
    assert found is not None, "TPU and CPU compilers both report memory"
    held = (
        found.argument_size_in_bytes
        + found.temp_size_in_bytes
        + found.output_size_in_bytes
        - found.alias_size_in_bytes
    )
    # On a TPU temporaries share their places over time, and the peak is less; a CPU program holds its whole buffer.
    peak = held if platform == "cpu" else found.peak_memory_in_bytes
    # The TPU's peak is that of the larger memory, device's or host's. Both figures are at least the device's.
    peak = min(peak, held) if found.host_temp_size_in_bytes else peak
    return {
        "arguments": found.argument_size_in_bytes,
        "temporaries": found.temp_size_in_bytes,
        "outputs": found.output_size_in_bytes,
        "aliased": found.alias_size_in_bytes,
        "host": found.host_temp_size_in_bytes,
        "peak": peak,
    }


def refused(words: str) -> dict[str, float]:
    """The size in a message such as `Used 20.80G of 15.75G hbm` or `required for … (129.25G) exceeds …`."""
    found = re.search(r"(?:Used |required [^(]*\()([\d.]+)([KMGT])", words)
    return {"peak": float(found[1]) * _UNITS[found[2]] if found else float("inf")}


def _bytes(tree: object) -> float:
    """Of one device, without the padding of tiles."""
    return sum(
        leaf.dtype.itemsize * math.prod(leaf.sharding.shard_shape(leaf.shape))
        for leaf in jax.tree.leaves(tree)
    )
