"""Ways of scoring and switches of the objective side by side: memory as the compiler reports it, and time of loss and gradients.

.venv/bin/python benchmarks/loss.py [--queries=4096] [--passages=8192] [--width=256] [--block=1024] [--output=FILE]

Runs on eight simulated devices of the CPU unless JAX_PLATFORMS and XLA_FLAGS say otherwise. The floor counts the three
products of queries × passages × width that loss and gradients need, and the rate is that of a large product on the same
devices; `chunked` and `ring` score once more in the backward pass, a third above the floor, and four directions take three times
the products.
"""

import argparse
import json
import os
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("XLA_FLAGS", "--xla_force_host_platform_device_count=8")

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from e5jax.config import Loss, Mesh
from e5jax.mesh import BATCH, make_mesh
from e5jax.train.loss import contrast
from e5jax.train.negatives import BatchInfo

LOSSES = {
    "dense": Loss(),
    "chunked": Loss(scores="chunked"),
    "ring": Loss(scores="ring"),
    "dense, masks": Loss(mask_duplicates=True, margin=0.1),
    "dense, four ways": Loss(
        directions=("query_to_doc", "doc_to_query", "query_to_query", "doc_to_doc")
    ),
    "dense, two prefixes": Loss(dimensions=(256, 32)),
}
SQUARE = 2_048  # of the product whose rate is the yardstick
COLUMNS = (
    "loss",
    "temp_bytes_per_device",
    "best_seconds",
    "relative_time",
    "smallest",
    "largest",
    "fraction_of_product_rate",
)


def main() -> None:
    """Measures, prints a table, writes JSON."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name, size in {
        "queries": 4_096,
        "passages": 8_192,
        "width": 256,
        "block": 1_024,
        "repeats": 9,
    }.items():
        options.add_argument(f"--{name}", type=int, default=size)
    options.add_argument("--output", type=Path)
    args = options.parse_args()
    found = measure(args)
    sizes = f"{args.queries:,} queries × {args.passages:,} passages × {args.width}, blocks of {args.block:,}"
    print(f"{sizes}, {found['devices']} devices ({found['device_kind']})")
    print(
        f"floor {found['floor_flops'] / 1e9:,.1f} GFLOP; product of {SQUARE:,}²: {found['product_rate'] / 1e9:,.1f} GFLOP/s"
    )
    print("".join(f"{name:<24}" for name in COLUMNS))
    for row in found["rows"]:
        values = [row[name] for name in COLUMNS]
        print(
            "".join(
                f"{value:<24,.3f}" if isinstance(value, float) else f"{value!s:<24}"
                for value in values
            )
        )
    if args.output:
        args.output.write_text(json.dumps(found, indent=2) + "\n")


def measure(args: argparse.Namespace) -> dict:
    """The table and what it rests on. All programs take turns, so that a busy machine slows all of them alike."""
    random = np.random.default_rng(0)
    mesh = make_mesh(Mesh())
    spread, whole = (NamedSharding(mesh, PartitionSpec(*axes)) for axes in ((BATCH, None), ()))
    with jax.set_mesh(mesh):
        sizes = (args.queries, args.width), (args.passages, args.width)
        inputs: list = [
            jax.device_put(unit(random.standard_normal(size).astype(np.float32)), spread)
            for size in sizes
        ]
        inputs.append(
            jax.device_put(
                terms(args.queries, args.passages), NamedSharding(mesh, PartitionSpec(BATCH))
            )
        )
        square = np.ones((SQUARE, SQUARE), np.float32)
        factors = [jax.device_put(square, spread), jax.device_put(square, whole)]
        programs = [compiled(replace(loss, block=args.block), inputs) for loss in LOSSES.values()]
        product = jax.jit(partial(jnp.matmul, precision="highest")).lower(*factors).compile()
        turns = [(product, factors), *((program, inputs) for program in programs)]
        taken = np.array(
            [
                [seconds(program, inputs) for program, inputs in turns]
                for _ in range(args.repeats + 1)
            ]
        )[1:]
    floor, rate = 6 * args.queries * args.passages * args.width, 2 * SQUARE**3 / taken[:, 0].min()
    rows = []
    for number, (name, program) in enumerate(zip(LOSSES, programs, strict=True), 1):
        best, ratios = taken[:, number].min(), taken[:, number] / taken[:, 1]
        memory = program.memory_analysis()
        assert memory is not None  # every backend that JAX supports reports it
        figures = best, np.median(ratios), ratios.min(), ratios.max(), floor / best / rate
        rows.append(
            dict(zip(COLUMNS, (name, memory.temp_size_in_bytes, *map(float, figures)), strict=True))
        )
    return {
        **{
            name: getattr(args, name)
            for name in ("queries", "passages", "width", "block", "repeats")
        },
        "devices": mesh.size,
        "device_kind": jax.devices()[0].device_kind,
        "floor_flops": floor,
        "product_rate": float(rate),
        "rows": rows,
    }


def terms(queries: int, passages: int) -> BatchInfo:
    """Nothing is left out: what is measured is what it costs to ask."""
    texts = np.arange(queries, dtype=np.int32), queries + np.arange(passages, dtype=np.int32)
    return BatchInfo(np.full(queries, 0.02, np.float32), np.ones(queries, np.bool_), *texts)


def unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def compiled(loss: Loss, inputs: list) -> jax.stages.Compiled:
    """Loss, accuracy and both gradients."""

    def objective(
        queries: jax.Array, passages: jax.Array, terms: BatchInfo
    ) -> tuple[jax.Array, jax.Array]:
        return contrast(queries, passages, terms, loss)

    return (
        jax.jit(jax.value_and_grad(objective, argnums=(0, 1), has_aux=True))
        .lower(*inputs)
        .compile()
    )


def seconds(program: jax.stages.Compiled, inputs: list) -> float:
    start = time.perf_counter()
    jax.block_until_ready(program(*inputs))
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
