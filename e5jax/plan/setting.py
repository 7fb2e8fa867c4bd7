"""What a search chooses, and which choices there are: mesh, chunks, what a layer keeps, precision of the base, kept chunks."""

import dataclasses
import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple, get_args

from e5jax.config import Mesh, Quantisation, Remat, Training
from e5jax.config.validate import check_batch
from e5jax.errors import ConfigError
from e5jax.mesh import AXES
from e5jax.model.kernels import choose
from e5jax.model.quantise import check_groups
from e5jax.model.spec import Spec, check_divisible
from e5jax.plan.topology import Topology


class Setting(NamedTuple):
    """Another thing to vary is one more field here, and one line each in `overrides` and `settings`."""

    data: int
    fsdp: int
    tensor: int
    chunks: int
    remat: Remat
    quantisation: Quantisation = "none"
    kept: int = 0  # chunks

    @property
    def overrides(self) -> tuple[str, ...]:
        """To be typed on the command line."""
        axes = tuple(f"--config.mesh.{axis}={getattr(self, axis)}" for axis in AXES)
        batch = {"chunks": self.chunks, "shards": self.shards, "kept_chunks": self.kept}
        model = {"remat": self.remat, "quantisation": self.quantisation}
        return (
            *axes,
            *(f"--config.batch.{field}={value}" for field, value in batch.items()),
            *(f"--config.model.{field}={value}" for field, value in model.items()),
        )

    @property
    def shards(self) -> int:
        """One for each device that has rows of its own."""
        return self.data * self.fsdp


def precisions(run: Training, overrides: Sequence[str]) -> tuple[Quantisation, ...]:
    """What the base may be, the highest precision first: what the config or the command line asks for, or all of them."""
    asked = any(word.startswith("--config.model.quantisation=") for word in overrides)
    if asked or run.lora is None or run.model.quantisation != "none":
        return (run.model.quantisation,)
    return get_args(Quantisation)


def settings(run: Training, spec: Spec, on: Topology, kind: Quantisation) -> Iterator[Setting]:
    """Every setting that divides the batch, the model and the machine: the run's own first, the others without kept chunks."""
    texts, keeps = run.batch.texts, remats(run, "cpu" if on.generation == "cpu" else "tpu")
    first = own(run, on.chips, kind)
    if first and divides(first, run, spec, on):
        yield first
    for data, fsdp, tensor in _meshes(on.chips):
        for chunks in (n for n in range(1, texts + 1) if texts % n == 0):
            if divides(Setting(data, fsdp, tensor, chunks, "nothing", kind), run, spec, on):
                every = (Setting(data, fsdp, tensor, chunks, remat, kind) for remat in keeps)
                yield from (one for one in every if one != first)


def own(run: Training, chips: int, kind: Quantisation) -> Setting | None:
    """What the run asks for, with a base of this kind; None where its mesh does not fill the machine."""
    sizes = [getattr(run.mesh, axis) for axis in AXES]
    rest = chips // math.prod(size for size in sizes if size > 0)
    data, fsdp, tensor = (rest if size == -1 else size for size in sizes)
    kept = 0 if run.batch.chunks == 1 else min(run.batch.kept_chunks, run.batch.chunks)
    found = Setting(data, fsdp, tensor, run.batch.chunks, run.model.remat, kind, kept)
    return found if data * fsdp * tensor == chips else None


def remats(run: Training, platform: str) -> list[Remat]:
    """What layers can keep: only the blockwise kernel has something of attention to keep, for others that is "projections"."""
    kernel = choose(
        run.model.attention, platform, run.model.dtype, run.batch.width(run.tokens.limit)
    )
    return [remat for remat in get_args(Remat) if kernel == "blockwise" or remat != "attention"]


def _meshes(chips: int) -> Iterator[tuple[int, int, int]]:
    divisors = [n for n in range(1, chips + 1) if chips % n == 0]
    yield from (
        (data, fsdp, chips // data // fsdp)
        for data in divisors
        for fsdp in divisors
        if chips // data % fsdp == 0
    )


def divides(one: Setting, run: Training, spec: Spec, on: Topology) -> bool:
    """Whether batch, model and slices divide evenly."""
    if one.data % on.slices:
        return False
    if run.batch.texts % (one.chunks * one.shards * run.batch.sure(run.tokens.limit)):
        return False  # it would work, with rows that are never used
    mesh = Mesh(one.data, one.fsdp, one.tensor)
    try:
        check_divisible(spec, mesh)
        check_groups(spec, one.quantisation, mesh)
        check_batch(
            dataclasses.replace(run.batch, chunks=one.chunks, shards=one.shards, kept_chunks=0),
            run.tokens.limit,
        )
    except ConfigError:
        return False
    return True
