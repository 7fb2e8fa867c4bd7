"""The evaluation stage of a run: every system on every task, `results.json`, the table and the report page."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from mteb.abstasks.abstask import AbsTask

from e5jax.config import Config, Eval
from e5jax.data.source import ExampleSource
from e5jax.embedder import Embedder
from e5jax.eval.bm25 import BM25
from e5jax.eval.evaluate import evaluate
from e5jax.eval.report import Neighbour, Report, Run, Search, read_metrics, write_report
from e5jax.eval.settings import make_encoder, settings_of
from e5jax.eval.tasks import find_task
from e5jax.workdir import Workdir, write_text

Scores = dict[str, dict[str, dict[str, float]]]  # system -> task -> score
HELDOUT = "heldout"
SHOWN_QUERIES, SHOWN_NEIGHBOURS = 6, 3
SAMPLED_LENGTHS = 4_000  # of training texts, for the histogram


class System(NamedTuple):
    """What is evaluated; no folder: BM25. `instruction` None is the task's own, empty none."""

    name: str
    folder: Path | None
    instruction: str | None


def summarise(config: Config, workdir: Workdir, untrained: Path) -> None:
    """Evaluates, prints the table, and writes `results.json` and `report.html`."""
    tasks = [workdir.data / HELDOUT if name == HELDOUT else name for name in config.eval.tasks]
    found = [find_task(str(task)) for task in tasks]
    scores = {system.name: run_system(system, found, config.eval, workdir) for system in systems(config, workdir, untrained)}
    write_text(workdir.results, json.dumps(results(scores, [task.metadata.name for task in found]), indent=2) + "\n")
    write_report(workdir.report, make_report(config, workdir, scores))
    print(table(scores, [task.metadata.name for task in found]))
    print(f"\nresults: {workdir.results}\nreport:  {workdir.report}\nmodel:   {workdir.export}")
    print(f"next:    {next_command(config, workdir)}", flush=True)


def systems(config: Config, workdir: Workdir, untrained: Path) -> list[System]:
    """What stands in the table, in its order. Where a run has one training stage, the base stands where it started."""
    if config.pretrain is None:
        base = [System("base", Path(config.model.base), None)] if config.model.base and Path(config.model.base).is_dir() else []
        return [*base, System("trained", workdir.export, None)]
    return [
        System("untrained", untrained, ""),
        System("bm25", None, ""),
        System("stage1", workdir.pretrain.export, ""),
        System("stage2", workdir.export, None),
    ]


def run_system(system: System, tasks: Sequence[AbsTask], config: Eval, workdir: Workdir) -> dict[str, dict[str, float]]:
    """Scores of one system by task."""
    print(f"eval: {system.name}", flush=True)
    output = workdir.root / "mteb" / system.name
    if system.folder is None:
        return evaluate(BM25(), tasks, output)
    settings = settings_of(system.folder, config.backend, config.preset, system.instruction)
    return evaluate(make_encoder(system.folder, settings), tasks, output, settings)


def results(scores: Scores, tasks: Sequence[str]) -> dict:
    """The content of `results.json`: nDCG@10 by system (mean over the tasks that have it), and everything by task."""
    ranked = [task for task in tasks if all("ndcg_at_10" in by_task[task] for by_task in scores.values())]
    mean = {system: float(np.mean([by_task[task]["ndcg_at_10"] for task in ranked])) for system, by_task in scores.items()}
    return {"ndcg_at_10": mean if ranked else {}, "tasks": scores}


def table(scores: Scores, tasks: Sequence[str]) -> str:
    """One line a task and system."""
    columns = list(dict.fromkeys(name for by_task in scores.values() for task in by_task.values() for name in task))
    lines = [f"{'task':<24}{'system':<12}" + "".join(f"{name:>15}" for name in columns)]
    for task in tasks:
        for system, by_task in scores.items():
            cells = "".join(f"{by_task[task].get(name, float('nan')):>15.4f}" for name in columns)
            lines.append(f"{task:<24}{system:<12}{cells}")
    return "\n".join(lines)


# --- the page --------------------------------------------------------------------------------------------------


def make_report(config: Config, workdir: Workdir, scores: Scores) -> Report:
    """All that the page shows, as plain values."""
    embedder = Embedder.from_pretrained(workdir.export, dtype="float32")
    queries, passages = training_lengths(config, workdir, embedder)
    heldout = HELDOUT in config.eval.tasks
    return Report(
        title=f"e5jax: {workdir.root.name}",
        lead="Docstrings search for their functions among packages that were not trained on." if heldout else "",
        results=by_system(scores),
        runs=list(runs(config, workdir)),
        query_lengths=queries,
        passage_lengths=passages,
        searches=searches(embedder, workdir.data / HELDOUT) if heldout else [],
        next_command=next_command(config, workdir),
    )


def by_system(scores: Scores) -> dict[str, dict[str, float]]:
    """A row a system, or one a task and system where there are several tasks; of a retrieval task nDCG@10 is the main score."""
    rows = {}
    for system, by_task in scores.items():
        for task, found in by_task.items():
            shown = {name: score for name, score in found.items() if name != "main_score" or "ndcg_at_10" not in found}
            rows[system if len(by_task) == 1 else f"{task}: {system}"] = shown
    return rows


def runs(config: Config, workdir: Workdir) -> list[Run]:
    """The training runs, in their order."""
    places = [("stage 1", workdir.pretrain), ("stage 2", workdir)] if config.pretrain else [("training", workdir)]
    return [
        Run(name, read_metrics(place.metrics), json.loads(place.trained.read_text(encoding="utf-8"))["trained_parameters"])
        for name, place in places
    ]


def training_lengths(config: Config, workdir: Workdir, embedder: Embedder) -> tuple[list[int], list[int]]:
    """Tokens of training queries and positives, a sample spread over all of them, before any truncation."""
    source = ExampleSource(config.data.files or [workdir.data / "train.jsonl"], 0)
    sample = [source[int(i)] for i in np.linspace(0, len(source) - 1, min(SAMPLED_LENGTHS, len(source)), dtype=int)]
    count = embedder.tokenizer.count
    return count([example.query for example in sample]), count([example.positives[0] for example in sample])


def searches(embedder: Embedder, folder: Path) -> list[Search]:
    """A few queries from the easiest to the hardest, evenly spaced by the rank of the right document, and what is found."""
    documents, queries = (_texts(folder / name) for name in ("corpus.jsonl", "queries.jsonl"))
    instruction = json.loads((folder / "task.json").read_text(encoding="utf-8"))["instruction"]
    names, asked = list(documents), list(queries)
    vectors = embedder.encode(list(documents.values()))
    scores = embedder.similarity(embedder.encode(list(queries.values()), instruction), vectors)
    right = scores[np.arange(len(asked)), [names.index(name) for name in asked]]
    order = np.argsort(np.sum(scores > right[:, None], axis=1), kind="stable")
    chosen = order[np.linspace(0, len(order) - 1, SHOWN_QUERIES + 1, dtype=int)[:-1]].tolist()
    return [_search(queries[asked[i]], asked[i], names, documents, scores[i]) for i in chosen]


def _search(query: str, right: str, names: Sequence[str], documents: Mapping[str, str], scores: np.ndarray) -> Search:
    order: list[int] = np.argsort(-scores, kind="stable").tolist()
    rank = 1 + order.index(names.index(right))
    best = [Neighbour(names[i], documents[names[i]], float(scores[i]), names[i] == right) for i in order[:SHOWN_NEIGHBOURS]]
    return Search(query, best, rank)


def _texts(path: Path) -> dict[str, str]:
    rows = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    return {row["_id"]: row["text"] for row in rows}


def next_command(config: Config, workdir: Workdir) -> str:
    """Something worth typing after this run."""
    if config.data.harvest is None:
        return f"e5jax eval --model={workdir.export} --benchmark='MTEB(eng, v1)' --output={workdir.root / 'mteb-eng-v1'}"
    longer = workdir.root.parent / "longer"
    return f"launch/train.sh configs/quickstart.py --workdir={longer} --config.pretrain.optim.steps=1000"
