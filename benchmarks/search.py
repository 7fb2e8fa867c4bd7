"""Exact search beside FAISS (`IndexFlatIP`): the same vectors and cores, each system in a process of its own, in turns.

.venv/bin/python benchmarks/search.py [--rows=1000000] [--queries=10000] [--repeats=3] [--output=FILE]

The corpus lies on disk as a .npy file. e5jax reads it by blocks; FAISS, which holds all vectors, is given the mapped file. Seconds
count everything from the opened file to the places in memory, programs compiled and pages read before: e5jax searches the
first block's worth of rows once, FAISS a few queries. `peak` is the most memory that the process held (`VmHWM` of Linux);
mapped pages of the file count, although the system can take them back. `agree` is the share of places that both found.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

SYSTEMS = ("e5jax", "faiss")
COLUMNS = ("system", "seconds", "cpu_seconds", "gflops_per_second", "peak_gb")
WRITTEN = 50_000  # rows at a time


def main() -> None:
    """Measures, prints a table, writes JSON."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, size in {"rows": 1_000_000, "queries": 10_000, "width": 256, "k": 100, "repeats": 3}.items():
        options.add_argument(f"--{name}", type=int, default=size)
    options.add_argument("--output", type=Path)
    options.add_argument("--search", nargs=2, metavar=("SYSTEM", "FOLDER"), help="one search as JSON, in this process")
    args = options.parse_args()
    if args.search:
        system, folder = args.search
        print(json.dumps(search(system, Path(folder), args.k)))
        return
    with tempfile.TemporaryDirectory() as place:
        write(Path(place), args)
        turns = [measure(args, Path(place)) for _ in range(args.repeats)]
    ratios = [turn["e5jax"]["seconds"] / turn["faiss"]["seconds"] for turn in turns]
    cpu = [turn["e5jax"]["cpu_seconds"] / turn["faiss"]["cpu_seconds"] for turn in turns]
    print(f"e5jax / faiss, median of {len(turns)}: {np.median(ratios):.2f} of the time, {np.median(cpu):.2f} of the CPU time")
    if args.output:
        sizes = {name: getattr(args, name) for name in ("rows", "queries", "width", "k")}
        found = {**sizes, "cores": os.cpu_count(), "turns": turns, "ratios": ratios, "cpu_ratios": cpu}
        args.output.write_text(json.dumps(found, indent=2) + "\n")


def write(folder: Path, args: argparse.Namespace) -> None:
    """Random unit vectors."""
    random = np.random.default_rng(0)
    for name, count in [("corpus", args.rows), ("queries", args.queries)]:
        file = np.lib.format.open_memmap(folder / f"{name}.npy", "w+", np.float32, (count, args.width))
        for start in range(0, count, WRITTEN):
            drawn = random.standard_normal((min(WRITTEN, count - start), args.width), np.float32)
            file[start : start + WRITTEN] = drawn / np.linalg.norm(drawn, axis=1, keepdims=True)
        file.flush()


def measure(args: argparse.Namespace, folder: Path) -> dict:
    """Both systems, one after the other; printed as well."""
    turn = {}
    for system in SYSTEMS:
        command = [sys.executable, __file__, "--search", system, str(folder), f"--k={args.k}"]
        row = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
        row["gflops_per_second"] = 2 * args.rows * args.queries * args.width / row["seconds"] / 1e9
        turn[system] = {"system": system, **row}
    found = [np.load(folder / f"{system}.npy") for system in SYSTEMS]
    turn["agree"] = float((found[0] == found[1]).mean())
    for system in SYSTEMS:
        cells = (f"{turn[system][name]:<20,.2f}" if name != "system" else f"{system:<10}" for name in COLUMNS)
        print("".join(cells), f"agree {turn['agree']:.5f}", flush=True)
    return turn


def search(system: str, folder: Path, k: int) -> dict:
    """One search, timed; the places are left in `folder`."""
    corpus, queries = (np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("corpus", "queries"))
    run = with_e5jax if system == "e5jax" else with_faiss
    seconds, cpu, places = run(corpus, np.array(queries), k)
    np.save(folder / f"{system}.npy", places)
    return {"seconds": seconds, "cpu_seconds": cpu, "peak_gb": status("VmHWM") / 1e9}


def with_e5jax(corpus: np.ndarray, queries: np.ndarray, k: int) -> tuple[float, float, np.ndarray]:
    """One device a core."""
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    os.environ.setdefault("XLA_FLAGS", f"--xla_force_host_platform_device_count={os.cpu_count()}")
    from e5jax.search import CPU, top_k

    top_k(queries, corpus[: CPU.rows * (os.cpu_count() or 1)], k)
    start, used = time.perf_counter(), time.process_time()
    places = top_k(queries, corpus, k)[1]
    return time.perf_counter() - start, time.process_time() - used, places


def with_faiss(corpus: np.ndarray, queries: np.ndarray, k: int) -> tuple[float, float, np.ndarray]:
    """The flat index, vectors added in one call."""
    import faiss

    faiss.omp_set_num_threads(os.cpu_count() or 1)
    index = faiss.IndexFlatIP(corpus.shape[1])
    index.add(corpus)
    index.search(queries[:32], k)
    start, used = time.perf_counter(), time.process_time()
    places = index.search(queries, k)[1]
    return time.perf_counter() - start, time.process_time() - used, places


def status(field: str) -> int:
    """A size in bytes from /proc/self/status."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:")) * 1_024


if __name__ == "__main__":
    main()
