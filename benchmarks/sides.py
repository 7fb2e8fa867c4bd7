"""Two sides of a comparison, each in a process of its own, that take turns: for scripts beside this one."""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any


def take_turns(
    options: argparse.ArgumentParser,
    workers: Mapping[str, Callable[[argparse.Namespace], Any]],
    prepare: Callable[[argparse.Namespace], None],
    compare: Callable[[argparse.Namespace], dict],
    show: Callable[[dict], None],
) -> None:
    """The whole of such a script: makes what both sides start from where `--work` has none, compares, shows; or is one side."""
    options.add_argument("--output", type=Path)
    options.add_argument("--work", type=Path)
    options.add_argument("--worker", choices=tuple(workers), help=argparse.SUPPRESS)
    args = options.parse_args()
    if args.worker:
        serve(workers[args.worker](args))
        return
    os.environ["JAX_PLATFORMS"] = "cpu"  # an accelerator is for the sides
    with tempfile.TemporaryDirectory() as folder:
        args.work = args.work or Path(folder)
        if not (args.work / "base").is_dir():
            prepare(args)
        found = compare(args)
    show(found)
    if args.output:
        args.output.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


def serve(worker: Any) -> None:
    """Answers commands, one JSON line each, with the worker's methods; its `facts` come first."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print must not get between the answers
    print(json.dumps(worker.facts()), file=answers, flush=True)
    for line in sys.stdin:
        command = json.loads(line)
        print(json.dumps(getattr(worker, command.pop("do"))(command)), file=answers, flush=True)


class Side:
    """A worker process: a script that calls `serve` when it gets `--worker=NAME`."""

    def __init__(self, script: str, name: str, settings: Sequence[str], platform: str = "cpu"):
        environment = {
            **os.environ,
            "JAX_PLATFORMS": platform,
            "XLA_PYTHON_CLIENT_MEM_FRACTION": "0.95",
            "HF_HUB_OFFLINE": "1",
            "TOKENIZERS_PARALLELISM": "false",
        }
        self.process = subprocess.Popen(
            [sys.executable, script, f"--worker={name}", *settings],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment,
        )  # fmt: skip
        self.facts = self._read()

    def _read(self) -> dict:
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"a worker ended with {self.process.wait()}; its error is above")
        return json.loads(line)

    def __call__(self, do: str, **command: Any) -> dict:
        self.process.stdin.write(json.dumps({"do": do, **command}) + "\n")
        self.process.stdin.flush()
        return self._read()

    def close(self) -> None:
        """Ends the worker: what it held is free."""
        self.process.stdin.close()
        self.process.wait()


def product_rates(
    shapes: dict[str, tuple[int, int, int]], dtype: str = "float32"
) -> dict[str, float]:
    """GFLOP/s of products of these shapes (m, k, n), in JAX, of random numbers."""
    import jax
    import jax.numpy as jnp

    def seconds(m: int, k: int, n: int) -> float:
        keys, product = jax.random.split(jax.random.key(0)), jax.jit(jnp.matmul)
        a, b = jax.random.normal(keys[0], (m, k), dtype), jax.random.normal(keys[1], (k, n), dtype)
        product(a, b).block_until_ready()
        repeats = 2 + int((2e10 if dtype == "float32" else 2e13) / (2 * m * k * n))
        times = []
        for _ in range(3):
            start = time.perf_counter()
            for _ in range(repeats):
                last = product(a, b)
            last.block_until_ready()
            times.append((time.perf_counter() - start) / repeats)
        return min(times)

    return {name: 2e-9 * m * k * n / seconds(m, k, n) for name, (m, k, n) in shapes.items()}
