"""From a configuration to the compiled step: everything a training run needs besides data and devices' contents."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import NamedSharding, PartitionSpec

from e5jax.config import Training
from e5jax.data.packing import layout
from e5jax.data.records import Batch
from e5jax.mesh import BATCH
from e5jax.model.kernels import choose
from e5jax.model.model_def import Abstract, ModelDef, model_def
from e5jax.model.spec import Spec
from e5jax.train import state, temperature
from e5jax.train.optim import optimiser, schedule
from e5jax.train.state import State
from e5jax.train.step import StepConfig, make_step


class TrainStep(NamedTuple):
    """The step and what it is made of."""

    model_def: ModelDef
    objective: StepConfig
    optimiser: optax.GradientTransformation
    step: jax.stages.Wrapped


def build_step(run: Training, spec: Spec, platform: str) -> TrainStep:
    """The learner of a training run on a decoder of this shape, for devices of this platform (`cpu`, `gpu`, `tpu`)."""
    kernel = choose(
        run.model.attention, platform, run.model.dtype, run.batch.width(run.tokens.limit)
    )
    model = run.model
    made = model_def(
        spec,
        run.lora,
        dtype=model.dtype,
        remat=model.remat,
        kernel=kernel,
        quantisation=model.quantisation,
        select=run.select.names,
        # TPUs round the factors of a float32 product to bfloat16, GPUs may to TF32: what A B adds to W would be lost.
        inside=platform == "cpu" and model.dtype == "float32",
    )
    batch = run.batch
    objective = StepConfig(
        made,
        model.pooling,
        run.loss,
        batch.kept_chunks,
        run.seed,
        kept_on=batch.kept_on,
        rounding=model.rounding,
        unrolled=batch.unrolled,
        positives=batch.positives,
    )
    update = optimiser(run.optim)
    return TrainStep(
        made, objective, update, make_step(objective, update, schedule(run.optim), run.guard)
    )


def batch_shardings(mesh: jax.sharding.Mesh) -> Batch:
    """Rows of every chunk, and the texts of every shard, are spread over the devices."""
    rows, shards = (
        NamedSharding(mesh, PartitionSpec(None, BATCH)),
        NamedSharding(mesh, PartitionSpec(BATCH)),
    )
    return Batch._make([rows] * 4 + [shards] * 6)


def put_batch(batch: Batch, mesh: jax.sharding.Mesh) -> Batch:
    """A batch from the host to the devices; each process hands over only the rows of its own devices."""

    def put(part: jax.Array, where: NamedSharding) -> jax.Array:
        return jax.make_array_from_callback(part.shape, where, lambda index: part[index])

    with jax.transfer_guard_host_to_device("allow"):  # the one place where data is meant to move
        return jax.tree.map(put, batch, batch_shardings(mesh))


def abstract_arguments(
    run: Training, learner: TrainStep, mesh: jax.sharding.Mesh
) -> tuple[State, Abstract, Batch]:
    """Shapes and placement of the step's arguments: all that compiling for a machine one does not have needs."""
    made = learner.model_def
    trained = made.abstract(made.trained, mesh, "float32") | temperature.abstract(run.loss, mesh)
    frozen = made.abstract(made.frozen, mesh, run.model.dtype)
    to, queries = layout(run.batch, run.tokens.limit), run.batch.queries // run.batch.shards
    wide, slots = (to.chunks, to.rows, to.width), (to.chunks, to.rows, to.texts_a_row)
    asked, offered = (to.shards, queries), (to.shards, queries * to.passages)
    shapes = [wide, wide, wide, slots, asked, offered, asked, offered, asked, asked]
    dtypes = [jnp.int32] * 8 + [jnp.float32, jnp.bool_]
    parts = zip(shapes, dtypes, batch_shardings(mesh), strict=True)
    batch = Batch._make(
        jax.ShapeDtypeStruct(shape, dtype, sharding=sharding) for shape, dtype, sharding in parts
    )
    return state.abstract(trained, learner.optimiser, mesh), frozen, batch
