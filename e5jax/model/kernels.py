"""Attention behind one interface: which kernel computes it is a value.

`xla` runs everywhere and holds all scores of a row; `blockwise` runs everywhere in memory linear in the row and is fast
on CPUs; `cudnn` is NVIDIA's fused kernel; `splash` is Pallas' for TPUs. Rows are packed: attention is inside each segment,
causal or in both directions, with an optional sliding window.
"""

from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec, reshard
from jaxtyping import Array, Bool, Float, Int

from e5jax.config import Kernel
from e5jax.data.packing import SHARED
from e5jax.mesh import BATCH
from e5jax.model import blockwise, splash

Concrete = Literal["xla", "blockwise", "cudnn", "splash"]
HEADS = PartitionSpec(BATCH, None, "tensor", None)
LONG = 2_048  # tokens; above this all scores of a row at once would fill the memory
SHORT_ON_TPU = 1_024  # tokens; up to here the compiler's own fused attention computes and holds less (decision 5)
SHORTEST_ON_CPU = (
    32  # tokens; from here on `blockwise` is the faster one there (benchmarks/attention.py)
)


def choose(kernel: Kernel, platform: str, dtype: str, length: int) -> Concrete:
    """The kernel for rows of `length` tokens on this platform (`cpu`, `gpu`, `tpu`), when the configuration says `auto`."""
    if kernel != "auto":
        return kernel
    if platform == "tpu" and length > SHORT_ON_TPU and length % splash.MULTIPLE == 0:
        return "splash"
    if platform == "gpu" and dtype == "bfloat16" and length % 2 == 0:
        return "cudnn"
    return (
        "blockwise" if length >= SHORTEST_ON_CPU and (platform == "cpu" or length > LONG) else "xla"
    )


def attend(
    q: Float[Array, "n t h e"],
    k: Float[Array, "n t k e"],
    v: Float[Array, "n t k e"],
    segments: Int[Array, "n t"],
    window: int | None,
    kernel: Concrete,
    shared: int = 0,
    causal: bool = True,
) -> Float[Array, "n t h e"]:
    """Softmax attention, scores in float32. A token sees its own segment up to itself, `window` tokens at most.

    Without `causal` it sees those after itself too, `window` tokens on each side as in transformers, and nothing can be shared.

    The first `shared` tokens of a row, of segment SHARED, are seen by every segment; `splash` knows no such thing. Rows are
    spread over `data` and `fsdp`, heads over `tensor`, and every device attends with what it has.
    """
    assert causal or not shared, "what is shared would see all texts of a row"
    if window is not None and not causal:
        window += 1  # itself
    if kernel == "xla":
        if (
            k.shape[2] == 1
        ):  # `tensor` is 1 then; jax's grouping of heads would expect its name on the single head
            q, k, v = (reshard(x, PartitionSpec(BATCH, None, None, None)) for x in (q, k, v))
        return reshard(
            jax.nn.dot_product_attention(
                q, k, v, mask=visible(segments, window, shared, causal), implementation="xla"
            ),
            HEADS,
        )
    if kernel == "splash":
        assert not shared, "there are segments in it, and nothing that is in all of them"
        local = partial(splash.attend, causal=causal)
    else:
        local = partial(
            {"blockwise": blockwise.attend, "cudnn": _cudnn}[kernel], shared=shared, causal=causal
        )
    # Kernels know nothing of meshes, and custom calls cannot be partitioned: each device runs one on its rows and heads.
    # Pallas does not say over which axes its results vary, hence no check of that.
    return jax.shard_map(
        lambda q, k, v, segments: local(q, k, v, segments, window),
        in_specs=(HEADS, HEADS, HEADS, PartitionSpec(BATCH, None)),
        out_specs=HEADS,
        check_vma=False,
    )(q, k, v, segments)


def visible(
    segments: Int[Array, "n t"], window: int | None, shared: int = 0, causal: bool = True
) -> Bool[Array, "n 1 t t"]:
    """Which key each query token sees: its own text and what is shared, with `causal` not the future, and within the window.

    The window counts as in transformers' Mistral: a token sees itself and the window - 1 tokens before it.
    Padding (segment 0) sees padding, so that no row of the softmax is empty.
    """
    here = jnp.arange(segments.shape[1])
    distance = here[:, None] - here[None, :]
    if not causal:
        distance = jnp.abs(distance)
    allowed = distance >= 0
    if window is not None:
        allowed &= distance < window
    same = segments[:, :, None] == segments[:, None, :]
    if shared:
        same |= (segments == SHARED)[:, None, :]
    return (allowed[None] & same)[:, None]


def _cudnn(
    q: Array, k: Array, v: Array, segments: Array, window: int | None, shared: int, causal: bool
) -> Array:
    """Half precision and an even length only. The mask becomes a bias: memory is quadratic in the row, once for all heads."""
    return jax.nn.dot_product_attention(
        q, k, v, mask=visible(segments, window, shared, causal), implementation="cudnn"
    )
