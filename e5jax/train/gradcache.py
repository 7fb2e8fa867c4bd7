"""One chunk of a batch: encoded when it holds text, its activations kept by name or computed again for the gradient.

A plain `lax.cond` would do, but its gradient returns from the forward branch whatever the backward branch needs, the
weights of all layers among it: a copy of the model for every chunk. Here the weights stay where they are.

What is kept may wait for the backward pass in the host's memory (docs/decisions/0010-host-offload.md).
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
from jaxtyping import Array

from e5jax.config import KeptOn
from e5jax.model.model_def import Parameters

Encode = Callable[..., Array]  # (trained, frozen, *texts) -> vectors
Policy = Callable[..., bool]  # of jax.checkpoint: what is kept


def remat_chunk(
    run: Encode, policy: Policy, kept_on: KeptOn = "device"
) -> Callable[[Parameters, Parameters, tuple[Array, ...]], Array]:
    """`(trained, frozen, (has_text, *texts)) -> run(trained, frozen, *texts)`, or zeros when `has_text` is false.

    Differentiable in `trained`. Between forward and backward pass there is what the policy keeps, and nothing else: in the
    memory of the device, or in pinned memory of its host.
    """
    checkpointed = jax.checkpoint(run, policy=policy, prevent_cse=False)
    move = _move if kept_on == "host" else _stay

    def split(
        trained: Parameters, frozen: Parameters, *texts: Array
    ) -> tuple[Array, list[Array], jax.tree_util.Partial]:
        """Vectors, what is kept, and how to get the gradient's function back from it and the arguments."""
        vectors, back = jax.vjp(lambda trained: checkpointed(trained, frozen, *texts), trained)
        leaves, tree = jax.tree.flatten(back)
        # What came in as an argument is there in the backward pass too; the rest has to be kept.
        given = {
            id(leaf): number
            for number, leaf in enumerate(jax.tree.leaves((trained, frozen, texts)))
        }
        places = [given.get(id(leaf)) for leaf in leaves]

        def join(arguments: list[Array], kept: list[Array]) -> Callable[[Array], tuple[Parameters]]:
            rest = iter(kept)
            return jax.tree.unflatten(
                tree, [next(rest) if place is None else arguments[place] for place in places]
            )

        kept = [leaf for leaf, place in zip(leaves, places, strict=True) if place is None]
        return vectors, kept, jax.tree_util.Partial(join)

    def forward(
        trained: Parameters, frozen: Parameters, chunk: tuple[Array, ...]
    ) -> tuple[Array, tuple]:
        has_text, *texts = chunk
        joins = []

        def go(*arguments: Any) -> tuple[Array, list[Array]]:
            vectors, kept, join = split(*arguments)
            joins.append(join)
            return vectors, kept

        def skip(*arguments: Any) -> tuple[Array, list[Array]]:
            return jax.tree.map(_zeros, jax.eval_shape(go, *arguments))

        vectors, kept = jax.lax.cond(has_text, go, skip, trained, frozen, *texts)
        # An empty chunk sends its zeros too: out of a branch the TPU compiler moves nothing to the host, and here it sends one
        # chunk while the next is computed.
        return vectors, (trained, frozen, chunk, move(kept, jax.memory.Space.Host), joins[0])

    def backward(saved: tuple, slope: Array) -> tuple[Parameters, None, None]:
        trained, frozen, (has_text, *texts), kept, join = saved

        def go(slope: Array, kept: list[Array], *arguments: Any) -> Parameters:
            return join(jax.tree.leaves(arguments), move(kept, jax.memory.Space.Device))(slope)[0]

        def skip(*_: Any) -> Parameters:
            return jax.tree.map(_no_gradient, trained)

        return jax.lax.cond(has_text, go, skip, slope, kept, trained, frozen, *texts), None, None

    @jax.custom_vjp
    def encode(trained: Parameters, frozen: Parameters, chunk: tuple[Array, ...]) -> Array:
        return forward(trained, frozen, chunk)[0]

    encode.defvjp(forward, backward)
    return encode


def _no_gradient(weight: Array) -> Array:
    stored = jax.typeof(weight).sharding.spec
    return jnp.zeros(
        weight.shape,
        weight.dtype,
        out_sharding=PartitionSpec(*stored.partitions, unreduced=stored.reduced),
    )


def _move(kept: list[Array], to: jax.memory.Space) -> list[Array]:
    with jax.named_scope(f"to_{to.name.lower()}"):
        return jax.device_put(kept, to)


def _stay(kept: list[Array], _: jax.memory.Space) -> list[Array]:
    return kept


def _zeros(like: jax.ShapeDtypeStruct) -> Array:
    # A number made of nothing that lies on the mesh has no sharding.
    return jnp.zeros(like.shape, like.dtype, out_sharding=like.sharding and like.sharding.spec)
