"""Peak rates of accelerators, dense bfloat16, in FLOP/s per device as JAX counts devices.

Sources: Google Cloud's TPU system-architecture pages (v4, v5e, v5p, v6e), NVIDIA's A100, H100 and H200 data sheets (SXM).
"""

import time
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

PEAK_FLOPS = {
    "TPU v4": 275e12,
    "TPU v5 lite": 197e12,
    "TPU v5": 459e12,
    "TPU v5p": 459e12,
    "TPU v6 lite": 918e12,
    "NVIDIA A100-SXM4-40GB": 312e12,
    "NVIDIA A100-SXM4-80GB": 312e12,
    "NVIDIA H100 80GB HBM3": 989e12,
    "NVIDIA H200": 989e12,
}
SIZE = 2_048  # of the product that stands in for a missing entry


class Peak(NamedTuple):
    """FLOP/s of a device, and where the figure is from."""

    flops: float
    source: Literal["published", "measured"]


def peak_flops(device: jax.Device) -> Peak:
    """The table's figure, or a float32 product timed here when the table has no such device. Call it outside any mesh."""
    if device.device_kind in PEAK_FLOPS:
        return Peak(PEAK_FLOPS[device.device_kind], "published")
    square = jax.device_put(jnp.ones((SIZE, SIZE), jnp.float32), device)
    product = jax.jit(jnp.matmul)
    product(square, square).block_until_ready()
    best = min(_seconds(product, square) for _ in range(3))
    # Simulated devices of a CPU share its cores.
    return Peak(2 * SIZE**3 / best / jax.local_device_count(), "measured")


def _seconds(product: jax.stages.Wrapped, square: jax.Array) -> float:
    start = time.perf_counter()
    product(square, square).block_until_ready()
    return time.perf_counter() - start
