"""`e5jax compact`: how well and how fast a model's vectors are searched in fewer bytes.

A model folder and a task in BEIR layout flow in. Texts are embedded once; nDCG@10 and queries per
second for each number of dimensions and each precision flow out, into `results.json` and
`report.html`.
"""

import statistics
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Float, Int

from e5jax.config.commands import CompactOptions
from e5jax.data.beir import Retrieval, ndcg, read_retrieval
from e5jax.errors import ConfigError
from e5jax.eval.report import PAGE, RESULTS, html, vector_table
from e5jax.inference import rescore
from e5jax.inference.embedder import Embedder
from e5jax.inference.vector_quantization import Store, ranges_of, shortened, stored_bytes
from e5jax.mesh import open_cpu
from e5jax.model.folder import locate
from e5jax.report.results import DEFAULT, MAIN, Results, Task, Vectors, read_results, write_results
from e5jax.report.tables import aligned
from e5jax.workdir.directory import write_text, writing

DEPTH = 10  # ranks that count
_TIMED_RUNS = 3  # after one that compiles
_HALVINGS = 5  # numbers of dimensions by default: all, a half, …


class EmbeddedTask(NamedTuple):
    """The vectors of a task."""

    queries: Float[np.ndarray, "q d"]
    documents: Float[np.ndarray, "p d"]
    # Grades of each query by place; missing documents have places after all others.
    relevant: list[dict[int, int]]
    own: list[int]  # place of the document that is the query itself, which is skipped; -1: none

    @property
    def depth(self) -> int:
        """Documents to retrieve so that `DEPTH` remain."""
        return DEPTH + (max(self.own) >= 0)


def main(options: CompactOptions) -> int:
    """Measures, prints a table, and writes both files; returns the exit code."""
    output, inputs = options.output, (Path(options.model), options.task)
    with writing("compact", output / RESULTS, output / PAGE, inputs=inputs):
        write_results(output / RESULTS, _measure(options), "compact")
        write_report(output)
    return 0


def _measure(options: CompactOptions) -> Results:
    open_cpu([])
    embedder = Embedder.from_pretrained(locate(options.model)).for_dot_products()
    data = read_retrieval(options.task)
    if not embedder.settings.normalises:
        raise ConfigError(
            f"--model={options.model}: its similarity is the dot product of vectors of any length; "
            "only cosines are measured"
        )
    dimensions = options.dimensions or halves(embedder.width)
    for number in dimensions:
        embedder.check_compact(number, "float32")
    instruction = data.instruction if options.instruction is None else options.instruction
    task, name = embed(embedder, data, instruction), options.task.resolve().name
    scores: dict[str, dict[str, dict[str, float]]] = {}
    vectors: dict[str, Vectors] = {}
    for stored, metrics in measurements(task, dimensions, options):
        system = f"{stored.dimensions} {stored.precision}"
        vectors[system], scores[system] = stored, {name: metrics}
    return Results(
        model=next(iter(vectors)),
        tasks={name: Task("Retrieval", ("test",), (DEFAULT,), data.notes)},
        scores=scores,
        vectors=vectors,
        settings={
            "model": options.model,
            "task": str(options.task),
            "instruction": instruction,
            "queries": f"{len(task.queries):,}",
            "documents": f"{len(task.documents):,}",
            "candidates per result": str(options.oversample),
            "vectors in timed searches": f"{options.rows:,}",
            "devices": f"{jax.local_device_count()} × {jax.local_devices()[0].device_kind}",
        },
        notes=data.notes,
    )


def write_report(output: Path) -> None:
    """Writes the page and prints the table, both from `results.json` alone."""
    results = read_results(output / RESULTS)
    settings = results.settings
    lead = "{queries} queries and {documents} documents of {task}.".format_map(settings)
    write_text(
        output / PAGE, html(f"Compact vectors of {settings['model']}", lead, results), "compact"
    )
    print(f"{aligned(vector_table(results), left=0)}\nreport: {output / PAGE}", flush=True)


def halves(width: int) -> tuple[int, ...]:
    """All dimensions, a half of them, and so on, while their bits fill whole bytes."""
    return tuple(
        width >> times for times in range(_HALVINGS) if (width >> times) % 8 == 0 or times == 0
    )


def embed(embedder: Embedder, data: Retrieval, instruction: str) -> EmbeddedTask:
    """Embeds every document, and every query that has a judgement."""
    judged = (name for grades in data.relevant.values() for name in grades)
    place = {name: number for number, name in enumerate(dict.fromkeys([*data.corpus, *judged]))}
    relevant = {
        query: {place[name]: grade for name, grade in grades.items() if grade}
        for query, grades in data.relevant.items()
    }
    if not any(relevant.values()):
        raise ConfigError("--task: no query has a relevant document; nothing could be scored")
    documents = [f"{document.title} {document.text}".strip() for document in data.corpus.values()]
    queries, templates = [data.queries[name] for name in relevant], embedder.tokenizer.templates
    return EmbeddedTask(
        embedder.encode(queries, prompt=templates.prefix(instruction), dimensions=embedder.width),
        embedder.encode(
            documents, prompt=templates.document, show_progress=True, dimensions=embedder.width
        ),
        list(relevant.values()),
        [place.get(query, -1) if data.skips_own else -1 for query in relevant],
    )


def measurements(
    task: EmbeddedTask, dimensions: Sequence[int], options: CompactOptions
) -> Iterator[tuple[Vectors, dict[str, float]]]:
    """Speed and metrics for each number of dimensions and each precision."""
    full = _first_stage_score(task, task.queries, Store.of(task.documents, "float32"))
    for number in dimensions:
        queries, documents = shortened(task.queries, number), shortened(task.documents, number)
        for precision in options.precisions:
            store = Store.of(documents, precision, ranges_of(documents))
            quality = score(task, _search(queries, store, options, task.depth))
            speed = queries_per_second(queries, store, options)
            yield (
                Vectors(number, precision, stored_bytes(number, precision), speed),
                {
                    MAIN: quality,
                    "ndcg_at_10": quality,
                    "share_of_full": quality / full if full else 0.0,
                    "first_stage_ndcg_at_10": _first_stage_score(task, queries, store),
                },
            )


def _first_stage_score(
    task: EmbeddedTask, queries: Float[np.ndarray, "q d"], store: Store
) -> float:
    return score(task, rescore.first_stage(queries, store, task.depth)[1])


def score(task: EmbeddedTask, places: Int[np.ndarray, "q k"]) -> float:
    """nDCG@10 of rankings, given by the places of their documents."""
    rankings = [
        [place for place in row if place != own][:DEPTH]
        for row, own in zip(places.tolist(), task.own, strict=True)
    ]
    width = min(map(len, rankings))
    gained = [
        [grades.get(place, 0) for place in row[:width]]
        for row, grades in zip(rankings, task.relevant, strict=True)
    ]
    most = max(map(len, task.relevant))
    possible = [[*grades.values(), *[0] * (most - len(grades))] for grades in task.relevant]
    return ndcg(np.array(gained, np.float64), np.array(possible, np.float64))


def queries_per_second(
    queries: Float[np.ndarray, "q d"], store: Store, options: CompactOptions
) -> float:
    """The median of some searches among `options.rows` vectors, copies with rotated dimensions."""
    count = max(options.rows, len(store.vectors))
    copies = [
        np.roll(store.vectors, turn, axis=1) for turn in range(-(-count // len(store.vectors)))
    ]
    larger = store._replace(vectors=np.concatenate(copies)[:count])
    seconds = []
    for _ in range(1 + _TIMED_RUNS):
        start = time.perf_counter()
        _search(queries, larger, options)
        seconds.append(time.perf_counter() - start)
    return len(queries) / statistics.median(seconds[1:])


def _search(
    queries: Float[np.ndarray, "q d"], store: Store, options: CompactOptions, depth: int = DEPTH
) -> Int[np.ndarray, "q k"]:
    if store.precision == "float32":
        return rescore.first_stage(queries, store, depth)[1]
    return rescore.search(queries, store, depth, oversample=options.oversample)[1]
