"""Is a plan right? Predicts the step time of three small runs on eight simulated CPU devices, then times them.

.venv/bin/python benchmarks/plan_cpu.py [--output=FILE]

The rates in the prediction are measured right before it. On a machine that is busy with other things both sides move.
"""

import argparse
import json
import os
import time
from pathlib import Path

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8"

import jax
import jax.numpy as jnp

from e5jax.config import Batch, Lora, Mesh, Model, Optim, Tokens, Training
from e5jax.mesh import make_mesh
from e5jax.model.spec import Spec
from e5jax.plan.machine import Machine, machine
from e5jax.plan.report import plan
from e5jax.plan.topology import parse_topology
from e5jax.train.build import abstract_arguments, build_step

TOPOLOGY = parse_topology("cpu:8")
OPTIM = Optim(steps=100, warmup_steps=10)
RUNS = {
    "all parameters, weights spread": (
        Spec("mistral", 1_024, 256, 704, 3, 4, 2, 64, 1e4, None, 1e-5, 1, 2),
        Training(
            model=Model(dtype="float32", remat="projections"),
            tokens=Tokens(limit=64),
            batch=Batch(16, 1, 3, shards=8),
            optim=OPTIM,
            mesh=Mesh(1, 8, 1),
        ),
    ),
    "adapters, all three mesh axes": (
        Spec("mistral", 1_024, 512, 1_408, 2, 8, 4, 64, 1e4, None, 1e-5, 1, 2),
        Training(
            model=Model(dtype="float32", remat="projections"),
            tokens=Tokens(limit=64),
            lora=Lora(rank=16, dropout=0.1),
            batch=Batch(16, 1, 3, shards=8),
            optim=OPTIM,
            mesh=Mesh(2, 2, 2),
        ),
    ),
    "long texts, nothing kept": (
        Spec("mistral", 1_024, 256, 704, 2, 4, 4, 64, 1e4, None, 1e-5, 1, 2),
        Training(
            model=Model(dtype="float32", remat="nothing"),
            tokens=Tokens(limit=192),
            batch=Batch(8, 1, 3, shards=8),
            optim=OPTIM,
            mesh=Mesh(8, 1, 1),
        ),
    ),
}


def main() -> None:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--output", type=Path)
    args = options.parse_args()
    found = []
    print(
        f"{'seconds of a step':<34}{'compute':>9}{'memory':>9}{'network':>9}{'predicted':>11}{'measured':>10}{'ratio':>7}"
    )
    for name, (spec, run) in RUNS.items():
        on = machine(TOPOLOGY)  # measured anew
        report, seconds = plan(run, spec, on), clock(run, spec, on)
        assert report.work is not None, "a CPU refuses no program"
        times = report.work.seconds
        found.append(
            {"run": name, **times._asdict(), "measured": seconds, "rates": on.chip._asdict()}
        )
        print(
            f"{name:<34}{times.compute:>9.3f}{times.memory:>9.3f}{times.network:>9.3f}{times.step:>11.3f}{seconds:>10.3f}"
            f"{times.step / seconds:>7.2f}",
            flush=True,
        )
    if args.output:
        args.output.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


def clock(run: Training, spec: Spec, on: Machine) -> float:
    """Seconds of a step, the best of five, on numbers that mean nothing."""
    mesh, learner = make_mesh(run.mesh, on.devices), build_step(run, spec, "cpu")
    with jax.set_mesh(mesh):
        state, base, batch = jax.tree.map(_fill, abstract_arguments(run, learner, mesh))
        best = float("inf")
        for _ in range(6):
            start = time.perf_counter()
            state, metrics = learner.step(state, base, batch)
            jax.block_until_ready((state, metrics))
            best = min(best, time.perf_counter() - start)
    return best


def _fill(leaf: jax.ShapeDtypeStruct) -> jax.Array:
    """Every token and segment is 1; weights are small."""
    if jnp.issubdtype(leaf.dtype, jnp.integer):
        return jax.device_put(jnp.ones(leaf.shape, leaf.dtype), leaf.sharding)
    made = 0.01 * jax.random.uniform(jax.random.key(0), leaf.shape, leaf.dtype)
    return jax.device_put(made, leaf.sharding)


if __name__ == "__main__":
    main()
