"""`e5jax compact`: how well and how fast a model's vectors are searched when they are stored in fewer bytes.

A model folder and a task in BEIR layout flow in. Texts are embedded once; then for each number of dimensions and each precision
nDCG@10 and queries a second flow out, into `results.json`, and from there onto `report.html`.
"""

import json
import statistics
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Float, Int

from e5jax.config import Precision
from e5jax.data.beir import Retrieval, ndcg, read_retrieval
from e5jax.errors import ConfigError
from e5jax.eval.quantization_report import report
from e5jax.inference import rescore
from e5jax.inference.embedder import Embedder
from e5jax.inference.vector_quantization import Store, ranges_of, shortened, stored_bytes
from e5jax.mesh import open_cpu
from e5jax.model.folder import locate
from e5jax.workdir.directory import write_text, writing

DEPTH = 10  # ranks that count
RUNS = 3  # of a search that is timed, after one that compiles
HALVINGS = 5  # numbers of dimensions, when none are given: all, a half, …
RESULTS, PAGE = "results.json", "report.html"


class Options(NamedTuple):
    """What is measured."""

    dimensions: tuple[int, ...] = ()  # empty: all, a half, a quarter, …
    precisions: tuple[Precision, ...] = ("float32", "int8", "binary")
    oversample: int = rescore.OVERSAMPLE
    instruction: str | None = None  # None: the task's own
    rows: int = 100_000  # that a search is timed on


class Task(NamedTuple):
    """A task as vectors."""

    queries: Float[np.ndarray, "q d"]
    documents: Float[np.ndarray, "p d"]
    relevant: list[
        dict[int, int]
    ]  # grades by place, of each query; a document that is missing has a place behind all others
    own: list[
        int
    ]  # place of the document that a query does not retrieve, since it is the query itself; -1: none

    @property
    def depth(self) -> int:
        """Documents to retrieve, so that `DEPTH` are left."""
        return DEPTH + (max(self.own) >= 0)


def main(model: str, folder: Path, output: Path, options: Options) -> int:
    """Measures, prints a table, and writes both files."""
    with writing("compact", output / RESULTS, output / PAGE, inputs=(Path(model), folder)):
        _measure(model, folder, output, options)
    return 0


def _measure(model: str, folder: Path, output: Path, options: Options) -> None:
    open_cpu([])
    embedder, found = (
        Embedder.from_pretrained(locate(model)).for_dot_products(),
        read_retrieval(folder),
    )
    if not embedder.settings.normalises:
        raise ConfigError(
            f"--model={model}: its similarity is the dot product of vectors of any length; only cosines are measured"
        )
    dimensions = options.dimensions or halves(embedder.width)
    for each in dimensions:
        embedder.check_compact(each, "float32")
    task = embedded(
        embedder, found, found.instruction if options.instruction is None else options.instruction
    )
    results = {
        "model": model,
        "task": str(folder),
        "queries": len(task.queries),
        "documents": len(task.documents),
        "notes": found.notes,
        "timed_rows": options.rows,
        "oversample": options.oversample,
        "device": f"{jax.local_device_count()} × {jax.local_devices()[0].device_kind}",
        "cells": list(cells(task, dimensions, options)),
    }
    write_text(output / RESULTS, json.dumps(results, indent=2) + "\n", "compact")
    write_report(output)


def write_report(output: Path) -> None:
    """The page and the table of `results.json`, from that file alone."""
    made = report(json.loads((output / RESULTS).read_text(encoding="utf-8")))
    write_text(output / PAGE, made.page, "compact")
    print(f"{made.table}\nreport: {output / PAGE}", flush=True)


def halves(width: int) -> tuple[int, ...]:
    """All dimensions, a half of them, and so on, while they are whole bytes of bits."""
    return tuple(
        width >> times for times in range(HALVINGS) if (width >> times) % 8 == 0 or times == 0
    )


def embedded(embedder: Embedder, found: Retrieval, instruction: str) -> Task:
    """Every document, and every query that has a judgement."""
    judged = (name for by in found.relevant.values() for name in by)
    place = {name: number for number, name in enumerate(dict.fromkeys([*found.corpus, *judged]))}
    relevant = {
        query: {place[name]: grade for name, grade in by.items() if grade}
        for query, by in found.relevant.items()
    }
    asked = list(relevant)
    if not any(relevant.values()):
        raise ConfigError("--task: no query has a relevant document; nothing could be scored")
    documents = [f"{one.title} {one.text}".strip() for one in found.corpus.values()]
    queries, templates = [found.queries[query] for query in asked], embedder.tokenizer.templates
    return Task(
        embedder.encode(queries, prompt=templates.prefix(instruction), dimensions=embedder.width),
        embedder.encode(
            documents, prompt=templates.document, show_progress=True, dimensions=embedder.width
        ),
        [relevant[query] for query in asked],
        [place.get(query, -1) if found.skips_own else -1 for query in asked],
    )


def cells(
    task: Task, dimensions: Sequence[int], options: Options
) -> Iterator[dict[str, float | int | str]]:
    """One for each number of dimensions and precision."""
    whole = score(
        task, rescore.first_stage(task.queries, Store.of(task.documents, "float32"), task.depth)[1]
    )
    for each in dimensions:
        queries, documents = shortened(task.queries, each), shortened(task.documents, each)
        for precision in options.precisions:
            store = Store.of(documents, precision, ranges_of(documents))
            found = score(task, _search(queries, store, options, task.depth))
            yield {
                "dimensions": each,
                "precision": precision,
                "bytes_per_vector": stored_bytes(each, precision),
                "ndcg_at_10": found,
                "share_of_whole": found / whole if whole else 0.0,
                "first_stage_ndcg_at_10": score(
                    task, rescore.first_stage(queries, store, task.depth)[1]
                ),
                "queries_per_second": throughput(queries, store, options),
            }


def score(task: Task, places: Int[np.ndarray, "q k"]) -> float:
    """nDCG@10 of what was found."""
    others = [
        [place for place in row if place != own][:DEPTH]
        for row, own in zip(places.tolist(), task.own, strict=True)
    ]
    width = min(map(len, others))
    gained = [
        [by.get(place, 0) for place in row[:width]]
        for row, by in zip(others, task.relevant, strict=True)
    ]
    most = max(map(len, task.relevant))
    possible = [[*by.values(), *[0] * (most - len(by))] for by in task.relevant]
    return ndcg(np.array(gained, np.float64), np.array(possible, np.float64))


def throughput(queries: np.ndarray, store: Store, options: Options) -> float:
    """Queries a second, the median of some searches of a larger store: rows that are missing are others with numbers in turn."""
    count = max(options.rows, len(store.vectors))
    copies = [
        np.roll(store.vectors, turn, axis=1) for turn in range(-(-count // len(store.vectors)))
    ]
    larger = store._replace(vectors=np.concatenate(copies)[:count])
    seconds = []
    for _ in range(1 + RUNS):
        begun = time.perf_counter()
        _search(queries, larger, options)
        seconds.append(time.perf_counter() - begun)
    return len(queries) / statistics.median(seconds[1:])


def _search(
    queries: np.ndarray, store: Store, options: Options, depth: int = DEPTH
) -> Int[np.ndarray, "q k"]:
    if store.precision == "float32":
        return rescore.first_stage(queries, store, depth)[1]
    return rescore.search(queries, store, depth, oversample=options.oversample)[1]
