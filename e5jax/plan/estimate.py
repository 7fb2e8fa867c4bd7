"""Memory and time of a setting by counting weights and tokens, before anything is compiled."""

import dataclasses
from collections.abc import Iterable
from typing import NamedTuple

from e5jax.config import TARGETS, Quantisation, Remat, Target, Training
from e5jax.model.quantise import bytes_per_parameter
from e5jax.model.spec import Spec
from e5jax.plan.fill import Means, filled_rows, rows_of_shard
from e5jax.plan.machine import Machine
from e5jax.plan.setting import Setting

# Forward passes of a layer in a step without chunks, by what it keeps: "nothing" repeats all but `down`, whose result the
# backward pass does not need; "projections" repeats attention, "attention" only what is cheap.
PASSES: dict[Remat, float] = {
    "everything": 1.0,
    "attention": 1.04,
    "projections": 1.06,
    "nothing": 1.8,
}


class Problem(NamedTuple):
    """What settings are estimated for."""

    run: Training
    spec: Spec
    on: Machine
    room: float  # bytes of a chip that may be used
    rows: dict[int, int]  # those with text in the fullest shard, by the number of shards

    @property
    def width(self) -> int:
        """Bytes of a number in the run's dtype."""
        return 2 if self.run.model.dtype == "bfloat16" else 4


class Guess(NamedTuple):
    """Seconds of a step."""

    compute: float
    network: float

    @property
    def order(self) -> tuple[float, float]:
        return max(self), sum(self)

    def no_faster_than(self, other: "Guess") -> bool:
        """In neither respect, or slower when all of it overlaps than the other when nothing does."""
        return (self.compute >= other.compute and self.network >= other.network) or max(
            self
        ) >= sum(other)


def filled(run: Training, means: Means | None, shards: Iterable[int]) -> dict[int, int]:
    """`Problem.rows` for these numbers of shards."""
    batches = {
        count: dataclasses.replace(run.batch, shards=count, chunks=1) for count in set(shards)
    }
    return {
        count: rows_of_shard(batch, run.tokens.limit)
        if means is None
        else filled_rows(batch, run.tokens.limit, means)
        for count, batch in batches.items()
    }


def used_chunks(one: Setting, of: Problem) -> int:
    """Those with text."""
    return -(-of.rows[one.shards] // _rows(one, of))


def least_memory(one: Setting, of: Problem) -> float:
    """Bytes of a chip that certainly live at once.

    Its share of the weights, of the numbers beside each trained one (two moments, gradient) and of all vectors, and what the
    layers keep of the kept chunks and of one that is encoded again.
    """
    run, spec = of.run, of.spec
    whole = everything(run)
    trained = spec.matrix_parameters + spec.vocab * spec.hidden if whole else adapters(run, spec)
    frozen = (
        0
        if whole
        else base_bytes(spec, one.quantisation, of.width) + spec.vocab * spec.hidden * of.width
    )
    stored = (frozen + 4 * 4 * trained) / one.fsdp / one.tensor
    if one.remat == "everything":  # every gathered matrix too
        stored += spec.matrix_parameters * of.width / one.tensor
    vectors = one.chunks * _rows(one, of) * run.batch.texts_a_row * spec.hidden * 4
    chunks = one.chunks if one.kept >= one.chunks else one.kept + 1
    return stored + vectors + chunks * chunk_bytes(one, of)


def chunk_bytes(one: Setting, of: Problem) -> float:
    """What the layers keep of one chunk on a chip: x, wo and q k v gate up; x alone with "nothing"."""
    spec = of.spec
    split = (spec.heads + 2 * spec.kv_heads) * spec.head_size + 2 * spec.ff
    kept = spec.hidden if one.remat == "nothing" else 2 * spec.hidden + split / one.tensor
    if one.remat == "everything":  # attention's weights
        kept += spec.heads * of.run.tokens.limit / one.tensor
    return _tokens(one, of) * spec.layers * kept * of.width


def guess(one: Setting, of: Problem) -> Guess:
    """Products of frozen and trained matrices; gathers of weights over fsdp, sums of activations over tensor."""
    spec, used = of.spec, used_chunks(one, of)
    kept = used if one.chunks == 1 else min(one.kept, used)
    again = used - kept
    backward = 2 if everything(of.run) else 1  # gradients of the input; of the weights too
    tokens = (
        _tokens(one, of) * one.shards * used
    )  # whole numbers: settings that differ in chunks alone come out exactly equal
    flops = 2 * tokens * spec.matrix_parameters * (PASSES[one.remat] + backward + again / used)
    runs = 2 * kept + 3 * again
    weights = (
        runs * base_bytes(spec, one.quantisation, of.width) / one.tensor * (one.fsdp - 1) / one.fsdp
    )
    activations = _tokens(one, of) * spec.hidden * of.width * spec.layers
    sums = 2 * runs * 2 * activations * (one.tensor - 1) / one.tensor
    return Guess(
        flops / of.on.topology.chips / of.on.chip.flops, (weights + sums) / of.on.chip.interconnect
    )


def base_bytes(spec: Spec, kind: Quantisation, width: int) -> float:
    """Bytes of the matrices of all layers, scales included."""
    each = {
        inputs: width if kind == "none" else bytes_per_parameter(kind, inputs)
        for inputs, _ in maps(spec).values()
    }
    return spec.layers * sum(
        inputs * outputs * each[inputs] for inputs, outputs in maps(spec).values()
    )


def everything(run: Training) -> bool:
    """Whether all parameters are trained. What is selected instead is little, and left out."""
    return run.lora is None and not run.select.names


def adapters(run: Training, spec: Spec) -> int:
    """Parameters of the adapters."""
    if run.lora is None:
        return 0
    return (
        spec.layers
        * run.lora.rank
        * sum(sum(maps(spec)[name]) for name in TARGETS if name in run.lora.targets)
    )


def maps(spec: Spec) -> dict[Target, tuple[int, int]]:
    """Inputs and outputs of a layer's linear maps."""
    wide, narrow = spec.heads * spec.head_size, spec.kv_heads * spec.head_size
    return {
        "q": (spec.hidden, wide),
        "k": (spec.hidden, narrow),
        "v": (spec.hidden, narrow),
        "o": (wide, spec.hidden),
        "gate": (spec.hidden, spec.ff),
        "up": (spec.hidden, spec.ff),
        "down": (spec.ff, spec.hidden),
    }


def _rows(one: Setting, of: Problem) -> int:
    """Of a chunk, on a chip."""
    return rows_of_shard(
        dataclasses.replace(of.run.batch, chunks=one.chunks, shards=one.shards), of.run.tokens.limit
    )


def _tokens(one: Setting, of: Problem) -> int:
    return _rows(one, of) * of.run.batch.width(of.run.tokens.limit)
