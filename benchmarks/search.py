"""Exact search beside FAISS (`IndexFlatIP`): the same vectors and cores, each system in a process of its own, in turns.

.venv/bin/python benchmarks/search.py [--rows=1000000] [--queries=10000] [--repeats=3] [--output=FILE]

The corpus lies on disk as .npy files. e5jax streams them; FAISS holds all vectors and is given the mapped files. Seconds
count everything from the opened files to the places in memory, e5jax's compilation too, but not the building of FAISS'
index. `product` is the floor: the products alone, tiles as in e5jax, nothing chosen, for
a tenth of the rows and scaled; `floor` is its time over that of a system. Other work on the machine stretches seconds more
than CPU seconds. `peak` is the most memory that the process held (`VmHWM` of Linux); mapped pages of the files count,
although the system can take them back. `agree` is the share of places that both found, `apart` the largest difference
of scores of one rank: both round.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

SYSTEMS = ("product", "e5jax", "faiss")
Found = tuple[np.ndarray, ...]  # scores and places
COLUMNS = ("system", "seconds", "cpu_seconds", "gflops_per_second", "peak_gb", "floor", "cpu_floor")
SHARD = 125_000  # rows of a file
SAMPLED = 10  # one in so many rows is multiplied for the floor


def main() -> None:
    """Measures, prints a table, writes JSON."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name, size in {
        "rows": 1_000_000,
        "queries": 10_000,
        "width": 256,
        "k": 100,
        "repeats": 3,
    }.items():
        options.add_argument(f"--{name}", type=int, default=size)
    options.add_argument("--output", type=Path)
    options.add_argument(
        "--search",
        nargs=2,
        metavar=("SYSTEM", "FOLDER"),
        help="one search as JSON, in this process",
    )
    args = options.parse_args()
    if args.search:
        system, folder = args.search
        print(json.dumps(search(system, Path(folder), args.k)))
        return
    sizes = {name: getattr(args, name) for name in ("rows", "queries", "width", "k")}
    print("".join(f"{name:<18}" for name in COLUMNS), "agree    apart")
    turns: list[dict] = []
    with tempfile.TemporaryDirectory() as place:
        write(Path(place), args)
        for number in range(args.repeats):
            turns.append(measure(args, Path(place), SYSTEMS if number % 2 == 0 else SYSTEMS[::-1]))
            ratios = {
                name: [turn["e5jax"][name] / turn["faiss"][name] for turn in turns]
                for name in ("seconds", "cpu_seconds")
            }
            if args.output:
                found = {**sizes, "cores": os.cpu_count(), "turns": turns, "ratios": ratios}
                args.output.write_text(json.dumps(found, indent=2) + "\n")
    time_of, cpu_of = (np.median(ratios[name]) for name in ("seconds", "cpu_seconds"))
    print(
        f"e5jax / faiss, median of {len(turns)}: {time_of:.2f} of the time, {cpu_of:.2f} of the CPU time"
    )


def write(folder: Path, args: argparse.Namespace) -> None:
    """Random unit vectors."""
    random = np.random.default_rng(0)
    counts = [min(SHARD, args.rows - start) for start in range(0, args.rows, SHARD)]
    for name, count in [
        *((f"corpus{number:03}", count) for number, count in enumerate(counts)),
        ("queries", args.queries),
    ]:
        drawn = random.standard_normal((count, args.width), np.float32)
        drawn /= np.linalg.norm(drawn, axis=1, keepdims=True)
        np.save(folder / f"{name}.npy", drawn)


def measure(args: argparse.Namespace, folder: Path, order: Sequence[str]) -> dict:
    """All systems, one after the other; printed as well."""
    turn = {}
    for system in order:
        command = [sys.executable, __file__, "--search", system, str(folder), f"--k={args.k}"]
        turn[system] = json.loads(
            subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        )
    (mine, ours), (scores, theirs) = (
        [np.load(folder / f"{system}_{part}.npy") for part in ("scores", "places")]
        for system in SYSTEMS[1:]
    )
    turn |= {"agree": float((ours == theirs).mean()), "apart": float(np.abs(mine - scores).max())}
    for system in SYSTEMS:
        row = turn[system]
        row["gflops_per_second"] = 2 * args.rows * args.queries * args.width / row["seconds"] / 1e9
        row["floor"], row["cpu_floor"] = (
            turn["product"][name] / row[name] for name in ("seconds", "cpu_seconds")
        )
        cells = (
            f"{row[name]:<18,.2f}" if name != "system" else f"{system:<18}" for name in COLUMNS
        )
        print("".join(cells), f"{turn['agree']:.5f}  {turn['apart']:.1e}", flush=True)
    return turn


def search(system: str, folder: Path, k: int) -> dict:
    """One search, timed; what was found is left in `folder`."""
    corpus = [np.load(file, mmap_mode="r") for file in sorted(folder.glob("corpus*.npy"))]
    run = {"product": product, "e5jax": with_e5jax, "faiss": with_faiss}[system]
    seconds, cpu, found = run(corpus, np.load(folder / "queries.npy"), k)
    for name, values in zip(("scores", "places"), found, strict=False):
        np.save(folder / f"{system}_{name}.npy", values)
    return {"seconds": seconds, "cpu_seconds": cpu, "peak_gb": status("VmHWM") / 1e9}


def timed(call: Callable[[], Found], times: float = 1) -> tuple[float, float, Found]:
    """Seconds and CPU seconds of a call, times a number, and its result."""
    start, used = time.perf_counter(), time.process_time()
    found = call()
    return (time.perf_counter() - start) * times, (time.process_time() - used) * times, found


def open_cores() -> None:
    """One device a core."""
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    os.environ.setdefault("XLA_FLAGS", f"--xla_force_host_platform_device_count={os.cpu_count()}")


def product(corpus: list[np.ndarray], queries: np.ndarray, _: int) -> tuple[float, float, Found]:
    """The products of a part of the rows."""
    open_cores()
    import jax
    import jax.numpy as jnp

    from e5jax.inference.search import CPU

    mesh = jax.make_mesh(
        (jax.device_count(),), ("rows",), axis_types=(jax.sharding.AxisType.Explicit,)
    )
    spread, whole = jax.sharding.PartitionSpec("rows"), jax.sharding.PartitionSpec()

    def local(tiles: jax.Array, rows: jax.Array) -> jax.Array:
        def one(tile: jax.Array) -> jax.Array:
            scores = jnp.einsum("qd,pd->qp", tile, rows, precision="highest")
            return scores[:, :1] + scores[:, -1:]  # else nothing would be multiplied

        return jax.lax.map(one, tiles)

    multiply = jax.jit(jax.shard_map(local, mesh=mesh, in_specs=(whole, spread), out_specs=spread))
    rows = CPU.rows * mesh.size
    block = jax.device_put(
        np.resize(corpus[0], (rows, queries.shape[1])), jax.NamedSharding(mesh, spread)
    )
    tiles = jax.device_put(
        np.resize(queries, (-(-len(queries) // CPU.queries), CPU.queries, queries.shape[1])),
        jax.NamedSharding(mesh, whole),
    )
    total, repeats = (
        sum(map(len, corpus)) * len(queries),
        max(1, sum(map(len, corpus)) // rows // SAMPLED),
    )

    def run() -> Found:
        for _ in range(repeats):
            multiply(tiles, block).block_until_ready()
        return ()

    run()
    return timed(run, total / (repeats * rows * tiles.shape[0] * CPU.queries))


def with_e5jax(corpus: list[np.ndarray], queries: np.ndarray, k: int) -> tuple[float, float, Found]:
    """One device a core."""
    open_cores()
    from e5jax.inference.search import top_k

    top_k(queries[:1], corpus[0][:1], 1)
    return timed(lambda: top_k(queries, corpus, k))


def with_faiss(corpus: list[np.ndarray], queries: np.ndarray, k: int) -> tuple[float, float, Found]:
    """The flat index."""
    import faiss

    faiss.omp_set_num_threads(os.cpu_count() or 1)
    index = faiss.IndexFlatIP(queries.shape[1])
    for part in corpus:
        index.add(part)
    index.search(queries[:32], k)
    return timed(lambda: index.search(queries, k))


def status(field: str) -> int:
    """A size in bytes from /proc/self/status."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:")) * 1_024


if __name__ == "__main__":
    main()
