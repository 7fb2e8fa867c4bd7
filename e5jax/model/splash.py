"""Splash attention, Pallas' block-sparse flash kernel for TPUs: memory grows linearly with the row."""

from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.pallas.ops.tpu.splash_attention import (
    splash_attention_kernel,
    splash_attention_mask,
)
from jaxtyping import Array, Float, Int

MULTIPLE = 128  # lanes of a TPU: blocks, and so rows, are multiples of it
LARGEST_BLOCK = (
    1_024  # tokens; fewest blocks to describe, and larger ones do not fit a chip's vector memory
)


def attend(
    q: Float[Array, "n t h e"],
    k: Float[Array, "n t k e"],
    v: Float[Array, "n t k e"],
    segments: Int[Array, "n t"],
    window: int | None,
    *,
    causal: bool = True,
    interpret: bool = False,
) -> Float[Array, "n t h e"]:
    """Softmax attention on one device; the length must be a multiple of 128. `interpret` runs it without a TPU, slowly.

    Segments mask, but only the causal order and the window skip blocks.
    """
    kernel = _kernel(q.shape[1], q.shape[2], window, causal, interpret)
    q, k, v = (x.swapaxes(1, 2) for x in (q * q.shape[-1] ** -0.5, k, v))
    rows = splash_attention_kernel.SegmentIds(segments, segments)
    return jnp.swapaxes(jnp.asarray(jax.vmap(kernel)(q, k, v, rows)), 1, 2)


def block_size(length: int) -> int:
    """Tokens of a block, the largest that divides the length."""
    return next(size for size in (LARGEST_BLOCK, 512, 256, MULTIPLE) if length % size == 0)


@lru_cache(maxsize=8)
def _kernel(
    length: int, heads: int, window: int | None, causal: bool, interpret: bool
) -> splash_attention_kernel.SplashAttentionKernel:
    """The kernel with its description of blocks as NumPy arrays, which any mesh and any trace can hold.

    The library makes device arrays of them. A thread has neither the caller's mesh, whose devices may be absent when
    compiling ahead of time, nor its trace.
    """
    with ThreadPoolExecutor(max_workers=1) as alone:
        return jax.tree.map(
            np.asarray, alone.submit(_build, length, heads, window, causal, interpret).result()
        )


def _build(
    length: int, heads: int, window: int | None, causal: bool, interpret: bool
) -> splash_attention_kernel.SplashAttentionKernel:
    block = block_size(length)
    shape = (length, length)
    if window is None:
        one = (
            splash_attention_mask.CausalMask(shape)
            if causal
            else splash_attention_mask.FullMask(shape)
        )
    else:
        one = splash_attention_mask.LocalMask(shape, (window - 1, 0 if causal else window - 1), 0)
    sizes = splash_attention_kernel.BlockSizes(
        block_q=block,
        block_kv=block,
        block_q_dkv=block,
        block_kv_dkv=block,
        block_q_dq=block,
        block_kv_dq=block,
    )
    mask = splash_attention_mask.MultiHeadMask([one] * heads)
    return splash_attention_kernel.make_splash_mha(
        mask, block_sizes=sizes, head_shards=1, q_seq_shards=1, interpret=interpret
    )
