"""Search of compact vectors in two stages: queries a second and recall of every precision, with our own first stage and FAISS'.

.venv/bin/python benchmarks/rescore.py [--rows=200000] [--queries=1000] [--width=256] [--k=10] [--repeats=3] [--output=FILE]

Vectors are random ones in clusters of twenty. Seconds count a whole search, from float queries to places in order, after one
that compiles; an index of FAISS is built before. Systems take turns. CPU seconds are of all cores: other work on a machine
moves them less than seconds. Recall is of the k places of exact search of floats.
"""

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

COLUMNS = ("system", "bytes a vector", "queries a second", "queries a CPU second", "recall")


def main() -> None:
    """Measures, prints a table, writes JSON."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name, size in {
        "rows": 200_000,
        "queries": 1_000,
        "width": 256,
        "k": 10,
        "oversample": 4,
        "repeats": 3,
    }.items():
        options.add_argument(f"--{name}", type=int, default=size)
    options.add_argument("--output", type=Path)
    args = options.parse_args()
    from e5jax.mesh import open_cpu

    open_cpu([])
    queries, rows = vectors(args.rows, args.queries, args.width)
    made = systems(queries, rows, args)
    places = {name: search() for name, (_, search) in made.items()}  # compiles
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in made}
    for number in range(args.repeats):
        for name in list(made)[:: 1 if number % 2 == 0 else -1]:
            begun, worked = time.perf_counter(), time.process_time()
            made[name][1]()
            seconds[name].append((time.perf_counter() - begun, time.process_time() - worked))
    found = []
    print("".join(f"{name:<26}" for name in COLUMNS))
    for name, (size, _) in made.items():
        same = [
            len(set(a) & set(b))
            for a, b in zip(places[name].tolist(), places["float32"].tolist(), strict=True)
        ]
        rates = [
            args.queries / statistics.median(taken) for taken in zip(*seconds[name], strict=True)
        ]
        row = dict(zip(COLUMNS, (name, size, *rates, sum(same) / places[name].size), strict=True))
        found.append(row | {"seconds": seconds[name]})
        print(
            f"{name:<26}{size:<26}{rates[0]:<26,.0f}{rates[1]:<26,.0f}{row['recall']:<26.4f}",
            flush=True,
        )
    if args.output:
        sizes = {
            name: getattr(args, name) for name in ("rows", "queries", "width", "k", "oversample")
        }
        args.output.write_text(
            json.dumps({**sizes, "cores": os.cpu_count(), "systems": found}, indent=2) + "\n"
        )


def vectors(rows: int, queries: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors in clusters, queries near some of them."""
    random = np.random.default_rng(0)
    centres = random.standard_normal((rows // 20, width), np.float32)
    corpus = centres[random.integers(len(centres), size=rows)] + 0.6 * random.standard_normal(
        (rows, width), np.float32
    )
    asked = corpus[random.choice(rows, queries, replace=False)] + 0.4 * random.standard_normal(
        (queries, width), np.float32
    )
    return tuple(x / np.linalg.norm(x, axis=1, keepdims=True) for x in (asked, corpus))


def systems(
    queries: np.ndarray, rows: np.ndarray, args: argparse.Namespace
) -> dict[str, tuple[int, Callable[[], np.ndarray]]]:
    """Bytes of a vector, and a search, by name."""
    from benchmarks.faiss_index import faiss_index
    from e5jax.inference import rescore
    from e5jax.inference.vector_quantization import Store, stored_bytes

    made: dict[str, tuple[int, Callable[[], np.ndarray]]] = {}

    def add(name: str, store: Store, index: Callable | None, first: bool = False) -> None:
        def search() -> np.ndarray:
            if first:
                return rescore.first_stage(queries, store, args.k)[1]
            return rescore.search(
                queries, store, args.k, oversample=args.oversample, candidates=index
            )[1]

        made[name] = stored_bytes(store.dimensions, store.precision), search

    for precision in ("float32", "int8", "binary"):
        store = Store.of(rows, precision)
        add(precision, store, None, first=precision == "float32")
        add(f"{precision}, FAISS", store, faiss_index(store))
    add("binary, FAISS graph", store, faiss_index(store, graph=True))
    return made


if __name__ == "__main__":
    main()
