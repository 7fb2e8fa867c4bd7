"""One training step: encode in chunks, contrast over the global batch, update what is trained.

GradCache (arXiv 2101.06983) is `lax.map` over `jax.checkpoint(encode)`: vectors of all chunks are kept, activations of
one chunk at a time, gradients are exact. `shard_map` is not needed: data movement is the `reshard` lines below.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import PartitionSpec, reshard
from jaxtyping import Array, Float

from e5jax.config import Loss, Pooling
from e5jax.learner.loss import infonce
from e5jax.learner.state import State
from e5jax.mesh import BATCH
from e5jax.model import dropout
from e5jax.model.blueprint import Blueprint, Parameters
from e5jax.model.pooling import pool
from e5jax.records import Batch, Metrics


class Objective(NamedTuple):
    """What the step needs to know besides numbers."""

    blueprint: Blueprint
    pooling: Pooling
    loss: Loss
    seed: int


def encode(
    objective: Objective, parameters: Parameters, batch: Batch, key: jax.Array | None
) -> tuple[Float[Array, "q d"], Float[Array, "p d"]]:
    """Unit vectors of all queries and passages, both spread over devices."""
    # One all-gather of the embedding table a step, instead of one a chunk.
    parameters = {**parameters, "embedding": reshard(parameters["embedding"], PartitionSpec(None, None))}
    chunks, layers = batch.tokens.shape[0], objective.blueprint.spec.layers
    seeds = None if key is None else dropout.seeds(key, (chunks, layers))

    def encode_chunk(seeds: Array | None, tokens: Array, segments: Array, positions: Array, ends: Array) -> Array:
        hidden = objective.blueprint.decoder(parameters)(tokens, segments, positions, seeds)
        return pool(hidden, segments, ends, objective.pooling)

    # A single chunk gains nothing from being recomputed as a whole.
    keep = jax.checkpoint_policies.nothing_saveable if chunks > 1 else jax.checkpoint_policies.everything_saveable
    one = jax.checkpoint(encode_chunk, policy=keep)
    inputs = (seeds, batch.tokens, batch.segments, batch.positions, batch.ends)
    vectors = jax.lax.map(lambda x: one(*x), inputs)  # [c n s d]
    with jax.named_scope("gather_vectors"):
        whole = reshard(vectors, PartitionSpec(None, None, None, None)).reshape(-1, vectors.shape[-1])
    queries, passages = (reshard(rows, PartitionSpec(BATCH)) for rows in (batch.queries, batch.passages))
    spread = PartitionSpec(BATCH, None)
    return whole.at[queries].get(out_sharding=spread), whole.at[passages].get(out_sharding=spread)


def loss_and_accuracy(
    objective: Objective, trained: Parameters, frozen: Parameters, batch: Batch, key: jax.Array | None
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """InfoNCE of the global batch. `key` switches LoRA dropout on."""
    queries, passages = encode(objective, {**frozen, **trained}, batch, key)
    return infonce(queries, passages, objective.loss)


def make_step(objective: Objective, optimiser: optax.GradientTransformation, rate: optax.Schedule) -> jax.stages.Wrapped:
    """The jitted step `(state, frozen, batch) -> (state, metrics)`; the state is donated.

    When loss or gradient is not finite the state comes back unchanged and `metrics.finite` is 0.
    """
    random = any(lora.dropout > 0 for lora in objective.blueprint.lora.values())

    def step(state: State, frozen: Parameters, batch: Batch) -> tuple[State, Metrics]:
        # The key is a function of (seed, step): nothing about randomness has to be stored.
        key = jax.random.fold_in(jax.random.key(objective.seed), state.step) if random else None

        def objective_of(trained: Parameters) -> tuple[Array, Array]:
            return loss_and_accuracy(objective, trained, frozen, batch, key)

        (loss, accuracy), gradient = jax.value_and_grad(objective_of, has_aux=True)(state.parameters)
        with jax.named_scope("update"):
            norm = optax.tree.norm(gradient)
            updates, moments = optimiser.update(gradient, state.moments, state.parameters)
            new = State(state.step + 1, jax.tree.map(jnp.add, state.parameters, updates), moments)
            finite = jnp.isfinite(loss) & jnp.isfinite(norm)
            new = jax.tree.map(lambda a, b: jnp.where(finite, a, b), new, state)
        last = jnp.take_along_axis(batch.positions, jnp.maximum(batch.ends, 0), axis=-1)
        lengths = jnp.where(batch.ends >= 0, last + 1, 0)
        metrics = Metrics(
            loss=loss,
            accuracy=accuracy,
            gradient_norm=norm,
            learning_rate=jnp.asarray(rate(state.step), jnp.float32),
            real_tokens=jnp.sum(batch.segments > 0, dtype=jnp.int32),
            computed_tokens=jnp.asarray(batch.tokens.size, jnp.int32),
            squared_lengths=jnp.sum(jnp.square(lengths.astype(jnp.float32))),
            finite=finite.astype(jnp.float32),
        )
        return new, metrics

    return jax.jit(step, donate_argnums=0)
