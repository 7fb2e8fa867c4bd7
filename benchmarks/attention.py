"""Times attention, forward and backward, kernel by kernel on packed rows of this machine, and prints a table.

.venv/bin/python benchmarks/attention.py [--output=FILE] [--repeats=5]

`floor` is the time that the causal products inside the texts would take at the rate of a 2048 × 2048 × 2048 product in
float32; `fraction` is floor over time. Times are the best of several, taken in turns, so ratios hold on a busy machine.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec

from e5jax.config import Mesh
from e5jax.mesh import BATCH, make_mesh
from e5jax.model.kernels import HEADS, Concrete, attend

HEADS_Q, HEADS_KV, SIZE = 6, 2, 64
SQUARE = 2_048


class Shape(NamedTuple):
    """Rows of one measurement; texts of `mean` tokens on average, 0 for one text a row."""

    rows: int
    length: int
    mean: int
    window: int | None = None
    xla: bool = True  # False: all scores at once would not fit


SHAPES = [
    Shape(256, 32, 20),
    Shape(128, 64, 0),
    Shape(64, 128, 90),
    Shape(32, 512, 90),
    Shape(32, 512, 0),
    Shape(4, 2_048, 90),
    Shape(2, 2_048, 0),
    Shape(2, 2_048, 0, 256),
    Shape(1, 8_192, 90, xla=False),
    Shape(1, 8_192, 0, xla=False),
    Shape(1, 8_192, 0, 512, xla=False),
]


def main() -> None:
    """Measures, prints a table, writes JSON."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--output", type=Path)
    options.add_argument("--repeats", type=int, default=5)
    args = options.parse_args()
    found = []
    print(
        "rows × length   mean text  window  kernel           ms  temp MiB  floor ms  fraction   × xla"
    )
    for shape in SHAPES:
        for line in measure(shape, args.repeats):
            found.append(line)
            print(
                f"{shape.rows:>4} × {shape.length:<9}{line['mean_text']:>9.0f}{shape.window or '':>8}  {line['kernel']:<10}"
                f"{line['ms']:>9.1f}{line['temp_mib']:>10.1f}{line['floor_ms']:>10.1f}{line['fraction']:>10.3f}"
                + (f"{line['ratio']:8.2f}" if line["ratio"] else ""),
                flush=True,
            )
    if args.output:
        args.output.write_text(json.dumps(found, indent=2) + "\n")


def measure(shape: Shape, repeats: int) -> list[dict[str, str | float | None]]:
    """A line a kernel, all timed in turns with the product that sets the floor."""
    random = np.random.default_rng(0)
    segments, lengths = packed(shape, random)
    kernels: list[Concrete] = ["xla", "blockwise"] if shape.xla else ["blockwise"]
    with jax.set_mesh(make_mesh(Mesh(1, 1, 1), jax.devices()[:1])):
        arguments = tuple(
            jax.device_put(
                random.standard_normal((shape.rows, shape.length, heads, SIZE)).astype(np.float32),
                HEADS,
            )
            for heads in (HEADS_Q, HEADS_KV, HEADS_KV, HEADS_Q)
        )
        arguments += (jax.device_put(segments, PartitionSpec(BATCH, None)),)
        square = jnp.ones((SQUARE, SQUARE))
        runs: dict[str, tuple[jax.stages.Compiled, tuple]] = {
            "product": (jax.jit(jnp.matmul).lower(square, square).compile(), (square, square))
        }
        for kernel in kernels:
            runs[kernel] = (
                jax.jit(step(kernel, shape.window)).lower(*arguments).compile(),
                arguments,
            )
        best = dict.fromkeys(runs, float("inf"))
        for turn in range(repeats + 1):
            for name, (run, values) in runs.items():
                spent = seconds(run, values)
                best[name] = (
                    min(best[name], spent) if turn else float("inf")
                )  # the first turn warms up
    floor = products(lengths, shape.window) * best["product"] / (2 * SQUARE**3)
    return [
        {
            **shape._asdict(),
            "mean_text": float(np.mean(lengths)),
            "kernel": kernel,
            "ms": 1e3 * best[kernel],
            "temp_mib": runs[kernel][0].memory_analysis().temp_size_in_bytes / 2**20,
            "floor_ms": 1e3 * floor,
            "fraction": floor / best[kernel],
            "ratio": best[kernel] / best["xla"] if shape.xla else None,
            "product_gflops": 2 * SQUARE**3 / best["product"] / 1e9,
        }
        for kernel in kernels
    ]


def packed(shape: Shape, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Segment ids `[n t]` without padding, and the lengths of all texts."""
    segments = np.ones((shape.rows, shape.length), np.int32)
    for row in segments if shape.mean else ():
        lengths = 10 + random.exponential(shape.mean - 10, shape.length).astype(int)
        row[:] = 1 + np.searchsorted(np.cumsum(lengths), np.arange(shape.length), side="right")
    return segments, np.concatenate([np.bincount(row)[1:] for row in segments])


def products(lengths: np.ndarray, window: int | None) -> float:
    """FLOPs of two products forward and four backward over the pairs of tokens that see each other."""
    near = np.minimum(lengths, window or lengths)
    pairs = near * (near + 1) / 2 + (lengths - near) * near
    return 6 * 2 * HEADS_Q * SIZE * float(pairs.sum())


def step(kernel: Concrete, window: int | None) -> Callable:
    """Output's product with `slope`, and its gradients."""

    def total(
        q: jax.Array, k: jax.Array, v: jax.Array, slope: jax.Array, segments: jax.Array
    ) -> jax.Array:
        return jnp.sum(attend(q, k, v, segments, window, kernel) * slope)

    return jax.value_and_grad(total, argnums=(0, 1, 2))


def seconds(run: jax.stages.Compiled, arguments: tuple) -> float:
    start = time.perf_counter()
    jax.block_until_ready(run(*arguments))
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
