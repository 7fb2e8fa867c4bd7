"""Rates of accelerators, one entry for each kind of device as JAX names it, and how to measure a machine that has none.

Sources. TPU: Google Cloud's pages "TPU v4", "TPU v5e", "TPU v5p" and "TPU v6e" (cloud.google.com/tpu/docs). Interconnect is one
direction of all links together (v5e: "1600 Gbps" of older pages, "400 GBps bidirectional" of newer ones, are both 200 GB/s);
the data-center network is the pages' figure for a pod over its chips (v5p: for a chip). The v4 page states no interconnect
(2400 Gbps: the table that compares versions in "TPU system architecture") and no data-center network (v5p's is taken).
v6e's interconnect is 3584 Gbps in older pages, 3200 in newer: the lower one is taken.
What a TPU leaves to programs is the figure in the compiler's out-of-memory message (libtpu 0.0.42).
GPU: NVIDIA's data sheets of A100, H100 and H200 (SXM), NVLink one way, and of the DGX they come in, a network port a GPU.
"""

import math
import os
import time
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, PartitionSpec, reshard

GIB = 2**30


class Chip(NamedTuple):
    """What one device can do at best."""

    flops: float  # dense bfloat16, FLOP/s
    memory: float  # bytes
    limit: float  # bytes of it that a program may use
    bandwidth: float  # of its memory, bytes/s
    interconnect: float  # to its neighbours, bytes/s
    datacenter: float  # to other slices or hosts, bytes/s


CHIPS = {
    "TPU v4": Chip(275e12, 32 * GIB, 30.75 * GIB, 1_200e9, 300e9, 6.25e9),
    "TPU v5 lite": Chip(197e12, 16 * GIB, 15.75 * GIB, 819e9, 200e9, 3.125e9),
    "TPU v5": Chip(459e12, 95.74 * GIB, 95.74 * GIB, 2_765e9, 600e9, 6.25e9),
    "TPU v5p": Chip(459e12, 95.74 * GIB, 95.74 * GIB, 2_765e9, 600e9, 6.25e9),
    "TPU v6 lite": Chip(918e12, 32 * GIB, 31.25 * GIB, 1_600e9, 400e9, 12.5e9),
    "NVIDIA A100-SXM4-40GB": Chip(312e12, 40e9, 40e9, 1_555e9, 300e9, 25e9),
    "NVIDIA A100-SXM4-80GB": Chip(312e12, 80e9, 80e9, 2_039e9, 300e9, 25e9),
    "NVIDIA H100 80GB HBM3": Chip(989e12, 80e9, 80e9, 3_350e9, 450e9, 50e9),
    "NVIDIA H200": Chip(989e12, 141e9, 141e9, 4_800e9, 450e9, 50e9),
}
SIZE = 2_048  # rows of the product that is measured
WIDE = 2**18  # elements a device of the array that is moved, 1 MiB
ROUNDS = 8


class Peak(NamedTuple):
    """FLOP/s of a device, and where the figure is from."""

    flops: float
    source: Literal["published", "measured"]


def peak_flops(device: jax.Device) -> Peak:
    """The table's figure, or a float32 product timed here when the table has no such device. Call it outside any mesh."""
    if device.device_kind in CHIPS:
        return Peak(CHIPS[device.device_kind].flops, "published")
    square = jax.device_put(jnp.ones((SIZE, SIZE), jnp.float32), device)
    # Simulated devices of a CPU share its cores.
    return Peak(
        2 * SIZE**3 / _seconds(jax.jit(jnp.matmul), square, square) / jax.local_device_count(),
        "measured",
    )


def measure(devices: Sequence[jax.Device]) -> Chip:
    """Rates of each of these devices while all of them work, in float32: for machines that the table does not have.

    Memory is timed on arrays of the size of a layer's activations that stay where they are, so caches count as in a step.
    """
    count = len(devices)
    mesh = jax.make_mesh((count,), ("all",), axis_types=(AxisType.Explicit,), devices=devices)
    each, whole = PartitionSpec("all"), PartitionSpec(None)

    def product(a: jax.Array, b: jax.Array) -> jax.Array:
        return jnp.einsum("cnk,km->cnm", a, b)

    def add(_: int, a: jax.Array) -> jax.Array:
        return a + 1

    def gather(_: int, a: jax.Array) -> jax.Array:
        return reshard(1 + reshard(a, whole), each)

    with jax.set_mesh(mesh):
        left, wide = (
            jax.device_put(jnp.ones(shape), each)
            for shape in ((count, SIZE // count, SIZE), (count, WIDE))
        )
        right = jax.device_put(jnp.ones((SIZE, SIZE)), whole)
        flops = 2 * left.size * SIZE / count / _seconds(jax.jit(product), left, right)
        moved = 2 * wide.nbytes / count * ROUNDS
        bandwidth = moved / _seconds(jax.jit(lambda a: jax.lax.fori_loop(0, ROUNDS, add, a)), wide)
        received = wide.nbytes * (count - 1) / count * ROUNDS
        network = received / _seconds(
            jax.jit(lambda a: jax.lax.fori_loop(0, ROUNDS, gather, a)), wide
        )
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / count
    return Chip(flops, memory, memory, bandwidth, network or math.inf, network or math.inf)


def _seconds(made: Callable[..., jax.Array], *given: jax.Array) -> float:
    """The best of three runs, after one that compiles."""
    made(*given).block_until_ready()
    return min(_timed(made, *given) for _ in range(3))


def _timed(made: Callable[..., jax.Array], *given: jax.Array) -> float:
    start = time.perf_counter()
    made(*given).block_until_ready()
    return time.perf_counter() - start
