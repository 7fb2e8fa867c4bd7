"""Looks for the fastest setting that fits: mesh, chunks and what a layer keeps, from the cheapest estimate upwards.

A setting that needs too much memory is refused by the compiler within seconds, one that fits takes a minute or more. So the
search starts where most is refused, and skips what it can already tell:

- weights and what the layers keep of one chunk alone must be below the limit;
- fewer chunks or more kept than in a setting refused on the same mesh need more memory still;
- no fewer FLOPs and no less traffic than in a setting that fits cannot be faster.
"""

import dataclasses
import sys
from collections.abc import Iterator, Sequence
from typing import NamedTuple, get_args

import jax

from e5jax.config import Config, Mesh, Remat
from e5jax.errors import ConfigError
from e5jax.loading import load
from e5jax.mesh import AXES
from e5jax.model.spec import Spec, check_divisible
from e5jax.plan.fill import Means
from e5jax.plan.machine import Machine
from e5jax.plan.report import Report, plan
from e5jax.plan.table import setting as shown
from e5jax.plan.table import verdict
from e5jax.validate import check_batch

# Forward passes of a layer in a step without chunks, by what it keeps: "nothing" repeats all but `down`, whose result the
# backward pass does not need; "projections" repeats attention, "attention" only what is cheap.
PASSES: dict[Remat, float] = {"everything": 1.0, "attention": 1.04, "projections": 1.06, "nothing": 1.8}


class Setting(NamedTuple):
    """What is searched. Another thing to vary is one more field here, one line each in `overrides` and `candidates`."""

    data: int
    fsdp: int
    tensor: int
    chunks: int
    remat: Remat

    @property
    def overrides(self) -> tuple[str, ...]:
        """To be typed on the command line."""
        axes = tuple(f"--config.mesh.{axis}={getattr(self, axis)}" for axis in AXES)
        batch = (f"--config.batch.chunks={self.chunks}", f"--config.batch.shards={self.shards}", "--config.batch.kept_chunks=0")
        return (*axes, *batch, f"--config.model.remat={self.remat}")

    @property
    def shards(self) -> int:
        """One for each device that has rows of its own."""
        return self.data * self.fsdp

    def needs_more_memory_than(self, other: "Setting") -> bool:
        """Certainly so, or just as much."""
        return self[:3] == other[:3] and self.chunks <= other.chunks and PASSES[self.remat] <= PASSES[other.remat]


class Guess(NamedTuple):
    """Seconds of a step by counting weights and tokens, before anything is compiled."""

    compute: float
    network: float

    @property
    def order(self) -> tuple[float, float]:
        return max(self), sum(self)

    def no_faster_than(self, other: "Guess") -> bool:
        """In neither respect."""
        return self.compute >= other.compute and self.network >= other.network


def search(
    config: str, overrides: Sequence[str], spec: Spec, on: Machine, limit: int, means: Means | None
) -> tuple[Report | None, tuple[str, ...]]:
    """The fastest report that fits among at most `limit` trials, with its overrides. Prints a line for each trial."""
    found = candidates(load(config, overrides), spec, on)
    if not found:
        raise ConfigError(
            f"--search: no mesh and number of chunks divide this batch over {on.topology.chips} chips and could fit their memory"
        )
    fitting: list[tuple[Setting, Report]] = []
    refused: list[Setting] = []
    tried = 0
    for one in sorted(found, key=lambda one: found[one].order):
        hopeless = any(one.needs_more_memory_than(other) for other in refused)
        slower = any(found[one].no_faster_than(found[other]) for other, _ in fitting)
        if hopeless or slower:
            continue
        if tried == limit:
            break
        tried += 1
        report = plan(load(config, [*overrides, *one.overrides]), spec, on, means)
        _say(report, tried, limit)
        if report.fits:
            fitting.append((one, report))
        else:
            refused.append(one)
        jax.clear_caches()  # a 7B program holds gigabytes
    if not fitting:
        return None, ()
    best, report = min(fitting, key=lambda pair: pair[1].work.seconds.step if pair[1].work else 0)
    return report, best.overrides


def candidates(run: Config, spec: Spec, on: Machine) -> dict[Setting, Guess]:
    """Every setting that divides and is not hopeless, with its guess."""
    texts = run.batch.texts
    found = {}
    for data, fsdp, tensor in _meshes(on.topology.chips):
        for chunks in (n for n in range(1, texts + 1) if texts % n == 0):
            for remat in get_args(Remat):
                one = Setting(data, fsdp, tensor, chunks, remat)
                if _divides(one, run, spec) and least_memory(one, run, spec) <= on.chip.limit:
                    found[one] = guess(one, run, spec, on)
    return found


def least_memory(one: Setting, run: Config, spec: Spec) -> float:
    """Bytes of a chip that certainly live at once: its share of the weights, and what the layers keep of one chunk."""
    width = 2 if run.model.dtype == "bfloat16" else 4
    weights = (spec.matrix_parameters + spec.vocab * spec.hidden) * (width if run.lora else 3 * 4)  # two moments beside them
    tokens = run.batch.texts * run.tokens.limit / one.chunks / one.data / one.fsdp
    split = (spec.heads + 2 * spec.kv_heads) * spec.head_size + 2 * spec.ff  # q k v gate up
    kept = spec.hidden if one.remat == "nothing" else 2 * spec.hidden + split / one.tensor
    stored = weights / one.fsdp / one.tensor
    if one.remat == "everything":  # attention's weights too, and every gathered matrix
        kept += spec.heads * run.tokens.limit / one.tensor
        stored += spec.matrix_parameters * width / one.tensor
    return stored + tokens * spec.layers * kept * width


def guess(one: Setting, run: Config, spec: Spec, on: Machine) -> Guess:
    """Products of frozen and trained matrices; gathers of weights over fsdp, sums of activations over tensor."""
    tokens = run.batch.texts * run.tokens.limit
    forward = PASSES[one.remat] + (one.chunks > 1)  # every chunk is encoded twice
    backward = 1 if run.lora else 2  # gradients of the input; of the weights too
    flops = 2 * tokens * spec.matrix_parameters * (forward + backward)
    width = 2 if run.model.dtype == "bfloat16" else 4
    runs = 3 if one.chunks > 1 else 2
    weights = runs * one.chunks * width * spec.matrix_parameters / one.tensor * (one.fsdp - 1) / one.fsdp
    activations = tokens / (one.data * one.fsdp) * spec.hidden * width * spec.layers
    sums = 2 * runs * 2 * activations * (one.tensor - 1) / one.tensor
    return Guess(flops / on.topology.chips / on.chip.flops, (weights + sums) / on.chip.interconnect)


def _meshes(chips: int) -> Iterator[tuple[int, int, int]]:
    divisors = [n for n in range(1, chips + 1) if chips % n == 0]
    yield from ((data, fsdp, chips // data // fsdp) for data in divisors for fsdp in divisors if chips // data % fsdp == 0)


def _divides(one: Setting, run: Config, spec: Spec) -> bool:
    if run.batch.texts % (one.chunks * one.shards * run.batch.sure(run.tokens.limit)):
        return False  # it would work, with rows that are never used
    try:
        check_divisible(spec, Mesh(one.data, one.fsdp, one.tensor))
        check_batch(dataclasses.replace(run.batch, chunks=one.chunks, shards=one.shards, kept_chunks=0), run.tokens.limit)
    except ConfigError:
        return False
    return True


def _say(report: Report, number: int, limit: int) -> None:
    """One line for a trial, where a person sees it and a pipe does not."""
    work = report.work
    rest = f"FLOPs × {report.flops_ratio:.2f}, {work.seconds.step:,.2f} s a step" if work else "refused"
    words = f"{number}/{limit}  {shown(report):<58}{verdict(report):<42}{rest}  ({report.compile_seconds:.0f} s)"
    print(words, file=sys.stderr, flush=True)
