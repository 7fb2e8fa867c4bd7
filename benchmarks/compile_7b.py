"""Compiles the real 7B training step for a TPU slice that is not here, and prints what a chip needs.

.venv/bin/python benchmarks/compile_7b.py [--topology=v5e:4x4] [--output=FILE]
"""

import argparse
import json
import os
import time
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")  # no metadata server is asked
os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")

import jax
from jax.experimental import topologies

from e5jax.learner.assemble import abstract_arguments, assemble
from e5jax.learner.flops import parameters
from e5jax.loading import load
from e5jax.mesh import make_mesh
from e5jax.model.spec import Spec

CONFIG = Path(__file__).parents[1] / "configs/e5_mistral_7b.py"
MISTRAL_7B = Spec("mistral", 32_000, 4_096, 14_336, 32, 32, 8, 128, 10_000.0, 4_096, 1e-5, 1, 2)


def main() -> None:
    """Compiles, prints a table, writes JSON."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--topology", default="v5e:4x4")
    options.add_argument("--output", type=Path)
    args = options.parse_args()
    found = measure(args.topology)
    for name, value in found.items():
        shown = value if isinstance(value, str) else f"{value:,.2f}" if isinstance(value, float) else f"{value:,}"
        print(f"{name:<26}{shown}")
    if args.output:
        args.output.write_text(json.dumps(found, indent=2) + "\n")


def measure(topology: str) -> dict[str, str | int | float]:
    """Memory of the step of configs/e5_mistral_7b.py on this topology, as its compiler reports it."""
    run = load(str(CONFIG))
    mesh = make_mesh(run.mesh, topologies.get_topology_desc(platform="tpu", topology_name=topology).devices)
    learner = assemble(run, MISTRAL_7B, "tpu")
    start = time.perf_counter()
    with jax.set_mesh(mesh):
        compiled = learner.step.lower(*abstract_arguments(run, learner, mesh)).compile()
    memory = compiled.memory_analysis()
    return {
        "topology": topology,
        "chips": mesh.size,
        "texts": run.batch.queries * (2 + run.batch.negatives),
        "tokens_a_text": run.tokens.limit,
        "chunks": run.batch.chunks,
        "attention": learner.blueprint.kernel,
        "remat": run.model.remat,
        "trained_parameters": parameters(learner.blueprint, learner.blueprint.trained),
        "peak_bytes_per_chip": memory.peak_memory_in_bytes,
        "peak_gib_per_chip": memory.peak_memory_in_bytes / 2**30,
        "argument_bytes_per_chip": memory.argument_size_in_bytes,
        "compile_seconds": time.perf_counter() - start,
    }


if __name__ == "__main__":
    main()
