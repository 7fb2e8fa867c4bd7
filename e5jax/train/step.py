"""One training step: encode in chunks, contrast over the global batch, update what is trained.

GradCache (arXiv 2101.06983) is `lax.map` over chunks that are encoded again for their gradient: vectors of all chunks are
kept, activations of one chunk at a time, gradients are exact. `shard_map` is not needed: data moves where a placement
is named, here and in the model.
"""

from collections.abc import Callable
from functools import partial
from operator import itemgetter
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import PartitionSpec
from jaxtyping import Array, Float, Int
from numpy import ndarray

from e5jax.config import Guard, KeptOn, Loss, Pooling, Rounding
from e5jax.data.records import Batch, Metrics
from e5jax.mesh import BATCH, defer_sums, gather_fsdp
from e5jax.model import dropout
from e5jax.model.decoder import remat_policy
from e5jax.model.model_def import ModelDef, Parameters
from e5jax.model.pooling import pool
from e5jax.train.gradcache import remat_chunk
from e5jax.train.guard import should_apply
from e5jax.train.loss import contrast
from e5jax.train.negatives import BatchInfo
from e5jax.train.rounding import through
from e5jax.train.state import State
from e5jax.train.temperature import learned

ROWS = PartitionSpec(BATCH, None, None)


class StepConfig(NamedTuple):
    """What the step needs to know besides numbers."""

    model_def: ModelDef
    pooling: Pooling
    loss: Loss
    kept_chunks: int
    seed: int
    kept_on: KeptOn = "device"
    rounding: Rounding = "float32"
    unrolled: bool = False
    positives: int = 1  # places for them among the passages of a query


def encode(
    objective: StepConfig,
    trained: Parameters,
    frozen: Parameters,
    batch: Batch,
    key: jax.Array | None,
) -> tuple[Float[Array, "q d"], Float[Array, "p d"]]:
    """Unit vectors of all queries and passages, both spread over the devices."""
    with jax.named_scope("gather"):
        trained = jax.tree.map(defer_sums, trained)
    # One all-gather of the embedding table a step, instead of one a chunk.
    with jax.named_scope("embed"):
        trained, frozen = _gather_embedding(trained), _gather_embedding(frozen)
    chunks, layers = batch.tokens.shape[0], objective.model_def.spec.layers
    seeds = None if key is None else dropout.seeds(key, (chunks, layers))

    def run(
        trained: Parameters, frozen: Parameters, seeds: Array | None, tokens: Array, *rest: Array
    ) -> Array:
        segments, positions, ends = rest
        hidden = objective.model_def.decoder({**frozen, **trained})(
            tokens, segments, positions, seeds
        )
        with jax.named_scope("pool"):
            return pool(hidden, segments, ends, objective.pooling)

    has_text = jnp.any(batch.ends >= 0, axis=(1, 2))
    inputs = (has_text, seeds, batch.tokens, batch.segments, batch.positions, batch.ends)
    # A single chunk gains nothing from being encoded twice.
    kept = chunks if chunks == 1 else min(objective.kept_chunks, chunks)
    once = remat_chunk(
        run, remat_policy(objective.model_def.remat, "x", "pooled"), objective.kept_on
    )
    again = remat_chunk(run, jax.checkpoint_policies.nothing_saveable)
    parts = []
    # What is encoded again stays a loop: written out, two chunks may be in memory at a time.
    parted = [
        ("kept", once, slice(0, kept), objective.unrolled),
        ("again", again, slice(kept, chunks), False),
    ]
    for name, one, part, unrolled in parted:
        if part.start < part.stop:
            with jax.named_scope(name):  # by which `e5jax plan` tells them apart
                parts.append(
                    _each(
                        partial(one, trained, frozen),
                        jax.tree.map(itemgetter(part), inputs),
                        unrolled,
                    )
                )
    with jax.named_scope("pool"):
        vectors = jnp.concatenate(parts)  # [c n s d]
        return gather_text_vectors(vectors, batch.queries), gather_text_vectors(
            vectors, batch.passages
        )


def _each(one: Callable[[tuple], Array], chunks: tuple, unrolled: bool) -> Float[Array, "c n s d"]:
    """Vectors of these chunks. A loop copies what they keep, to have it in one place; `unrolled` they have a place each."""
    if not unrolled:
        return jax.lax.map(one, chunks)
    return jnp.stack(
        [one(jax.tree.map(itemgetter(number), chunks)) for number in range(len(chunks[0]))]
    )


def _gather_embedding(parameters: Parameters) -> Parameters:
    """The embedding table whole on every device, where it is among these."""
    return {
        name: gather_fsdp(value) if name == "embedding" else value
        for name, value in parameters.items()
    }


def gather_text_vectors(
    vectors: Float[Array, "c n s d"], places: Int[Array | ndarray, "shards m"]
) -> Float[Array, "shards_m d"]:
    """The vectors of the texts at these places, shard by shard, zero for -1; no device needs another's rows."""
    chunks, rows, slots, width = vectors.shape
    shards, count = places.shape
    split = jax.lax.reshape(
        vectors,
        (chunks, shards, rows // shards, slots, width),
        out_sharding=PartitionSpec(None, BATCH, None, None, None),
    )
    whole = jax.lax.reshape(
        split.swapaxes(0, 1), (shards, chunks * rows // shards * slots, width), out_sharding=ROWS
    )

    def take(own: Float[Array, "n d"], at: Int[Array | ndarray, " m"]) -> Float[Array, "m d"]:
        return own.at[at].get(
            mode="fill", fill_value=0, wrap_negative_indices=False
        )  # else -1 is the last text

    found = jax.vmap(take)(whole, places)
    return jax.lax.reshape(found, (shards * count, width), out_sharding=PartitionSpec(BATCH, None))


def loss_and_accuracy(
    objective: StepConfig,
    trained: Parameters,
    frozen: Parameters,
    batch: Batch,
    key: jax.Array | None,
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """The contrast of the global batch. `key` switches LoRA dropout on."""
    queries, passages = (
        through(side, objective.rounding) for side in encode(objective, trained, frozen, batch, key)
    )
    with jax.named_scope("loss"):
        parts = (batch.temperatures, batch.in_batch, batch.query_texts, batch.passage_texts)
        terms = BatchInfo._make(
            jax.lax.reshape(part, (part.size,), out_sharding=PartitionSpec(BATCH)) for part in parts
        )
        terms = terms._replace(temperatures=learned(terms.temperatures, trained, objective.loss))
        return contrast(queries, passages, terms, objective.loss, objective.positives)


def make_step(
    objective: StepConfig,
    optimiser: optax.GradientTransformationExtraArgs,
    rate: optax.Schedule,
    guard: Guard,
) -> jax.stages.Wrapped:
    """The jitted step `(state, frozen, batch) -> (state, metrics)`; the state is donated.

    When the guard refuses the update, the state comes back as it was, but for the guard's own counters.
    """
    random = any(lora.dropout > 0 for lora in objective.model_def.lora.values())

    def step(state: State, frozen: Parameters, batch: Batch) -> tuple[State, Metrics]:
        # The key is a function of (seed, step): nothing about randomness has to be stored.
        key = jax.random.fold_in(jax.random.key(objective.seed), state.step) if random else None

        def objective_of(trained: Parameters) -> tuple[Array, Array]:
            return loss_and_accuracy(objective, trained, frozen, batch, key)

        (loss, accuracy), gradient = jax.value_and_grad(objective_of, has_aux=True)(
            state.parameters
        )
        with jax.named_scope("update"):
            norm = optax.tree.norm(gradient)
            made, finite, watch = should_apply(guard, state.watch, loss, norm)
            updates, moments = optimiser.update(
                gradient, state.moments, state.parameters, made=made
            )
            parameters = jax.tree.map(
                lambda old, update: jnp.where(made, old + update, old), state.parameters, updates
            )
            new = State(state.step + made, parameters, moments, watch)
        last = jnp.take_along_axis(batch.positions, jnp.maximum(batch.ends, 0), axis=-1)
        lengths = jnp.where(batch.ends >= 0, last + 1, 0)
        metrics = Metrics(
            loss=loss,
            accuracy=accuracy,
            gradient_norm=norm,
            learning_rate=jnp.asarray(rate(state.step), jnp.float32),
            real_tokens=jnp.sum(batch.segments > 0, dtype=jnp.int32),
            computed_tokens=jnp.sum(jnp.any(batch.ends >= 0, axis=(1, 2)), dtype=jnp.int32)
            * batch.tokens[0].size,
            squared_lengths=jnp.sum(jnp.square(lengths.astype(jnp.float32))),
            finite=finite.astype(jnp.float32),
            skipped=watch.skipped,
            in_a_row=watch.in_a_row,
        )
        return new, metrics

    return jax.jit(step, donate_argnums=0)
