"""The evaluation stage of a run: every system on every task, `results.json`, the table and the report page."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from mteb.abstasks.abstask import AbsTask

from e5jax.config import Config, Eval
from e5jax.data.beir import read_retrieval
from e5jax.eval.bm25 import BM25
from e5jax.eval.evaluate import evaluate
from e5jax.eval.queries import read_rankings
from e5jax.eval.report import Neighbour, Report, Run, Search, read_metrics, write_report
from e5jax.eval.scope import TaskScope, scope_of
from e5jax.eval.settings import make_encoder, settings_of
from e5jax.eval.tasks import find_task
from e5jax.workdir.directory import Workdir, write_text

Scores = dict[str, dict[str, dict[str, float]]]  # system -> task -> score
HELDOUT = "heldout"
SHOWN_QUERIES = 6


class System(NamedTuple):
    """What is evaluated; no folder: BM25. `instruction` None is the task's own, empty none."""

    name: str
    folder: Path | None
    instruction: str | None


def summarise(
    config: Config, workdir: Workdir, untrained: Path, base: Path | None, missing: str
) -> None:
    """Evaluates, prints the table, and writes `results.json` and `report.html`; `missing` says why there is no base."""
    tasks = [
        find_task(str(workdir.data / HELDOUT) if name == HELDOUT else name)
        for name in config.eval.tasks
    ]
    scope = {task.metadata.name: scope_of(task) for task in tasks}
    notes = [f"{task}: {note}" for task, of in scope.items() for note in of.notes]
    notes += [missing] if missing else []
    print("".join(f"note: {note}\n" for note in notes), end="", flush=True)
    compared = systems(config, workdir, untrained, base)
    scores = {system.name: run_system(system, tasks, config.eval, workdir) for system in compared}
    write_text(workdir.results, json.dumps(results(scores, scope), indent=2) + "\n")
    write_report(workdir.report, make_report(config, workdir, scores, scope, notes))
    print(table(scores, scope))
    print(f"\nresults: {workdir.results}\nreport:  {workdir.report}\nmodel:   {workdir.export}")
    print(f"next:    {next_command(config, workdir)}", flush=True)


def systems(config: Config, workdir: Workdir, untrained: Path, base: Path | None) -> list[System]:
    """The rows of the table, in order. Where a run has one training stage, the base stands for its start."""
    if config.pretrain is None:
        return [
            *([System("base", base, None)] if base else []),
            System("trained", workdir.export, None),
        ]
    return [
        System("untrained", untrained, ""),
        System("bm25", None, ""),
        System("stage1", workdir.pretrain.export, ""),
        System("stage2", workdir.export, None),
    ]


def run_system(
    system: System, tasks: Sequence[AbsTask], config: Eval, workdir: Workdir
) -> dict[str, dict[str, float]]:
    """Scores of one system by task."""
    print(f"eval: {system.name}", flush=True)
    output = output_of(workdir, system.name)
    if system.folder is None:
        return evaluate(BM25(), tasks, output)
    settings = settings_of(system.folder, config.backend, config.preset, system.instruction)
    return evaluate(make_encoder(system.folder, settings), tasks, output, settings)


def output_of(workdir: Workdir, system: str) -> Path:
    """Where mteb's own results of a system are. Earlier versions put scores of the base as it was published into `base`."""
    return workdir.root / "mteb" / ("start" if system == "base" else system)


def results(scores: Scores, scope: Mapping[str, TaskScope]) -> dict:
    """The content of `results.json`: nDCG@10 by system (mean over the tasks that have it), everything by task, and of what."""
    ranked = [
        task for task in scope if all("ndcg_at_10" in by_task[task] for by_task in scores.values())
    ]
    mean = {
        system: float(np.mean([by_task[task]["ndcg_at_10"] for task in ranked]))
        for system, by_task in scores.items()
    }
    return {
        "ndcg_at_10": mean if ranked else {},
        "tasks": scores,
        "scope": {task: of.as_json() for task, of in scope.items()},
    }


def table(scores: Scores, scope: Mapping[str, TaskScope]) -> str:
    """One line per task and system."""
    columns = list(
        dict.fromkeys(
            name for by_task in scores.values() for task in by_task.values() for name in task
        )
    )
    width = 2 + max(len("of"), *(len(of.label) for of in scope.values()))
    lines = [
        f"{'task':<24}{'of':<{width}}{'system':<12}" + "".join(f"{name:>15}" for name in columns)
    ]
    for task, of in scope.items():
        for system, by_task in scores.items():
            cells = "".join(f"{by_task[task].get(name, float('nan')):>15.4f}" for name in columns)
            lines.append(f"{task:<24}{of.label:<{width}}{system:<12}{cells}")
    return "\n".join(lines)


# --- the page --------------------------------------------------------------------------------------------------


def make_report(
    config: Config,
    workdir: Workdir,
    scores: Scores,
    scope: Mapping[str, TaskScope],
    notes: Sequence[str],
) -> Report:
    """All that the page shows, as plain values."""
    lengths = (
        json.loads(workdir.lengths.read_text(encoding="utf-8")) if workdir.lengths.is_file() else {}
    )
    heldout = HELDOUT in config.eval.tasks
    return Report(
        title=f"e5jax: {workdir.root.name}",
        lead="Docstrings search for their functions among packages that were not trained on."
        if heldout
        else "",
        results=by_system(scores),
        runs=list(runs(config, workdir)),
        query_lengths=lengths.get("queries", ()),
        passage_lengths=lengths.get("passages", ()),
        searches=searches(workdir, list(scores)[-1]) if heldout else [],
        next_command=next_command(config, workdir),
        notes=[*(f"{task}: scores are of {of.label}." for task, of in scope.items()), *notes],
    )


def by_system(scores: Scores) -> dict[str, dict[str, float]]:
    """A row a system, or one a task and system where there are several tasks; of a retrieval task nDCG@10 is the main score."""
    rows = {}
    for system, by_task in scores.items():
        for task, values in by_task.items():
            shown = {
                name: score
                for name, score in values.items()
                if name != "main_score" or "ndcg_at_10" not in values
            }
            rows[system if len(by_task) == 1 else f"{task}: {system}"] = shown
    return rows


def runs(config: Config, workdir: Workdir) -> list[Run]:
    """The training runs, in their order."""
    places = (
        [("stage 1", workdir.pretrain), ("stage 2", workdir)]
        if config.pretrain
        else [("training", workdir)]
    )
    return [
        Run(
            name,
            read_metrics(place.metrics),
            json.loads(place.trained.read_text(encoding="utf-8"))["trained_parameters"],
        )
        for name, place in places
    ]


def searches(workdir: Workdir, system: str) -> list[Search]:
    """A few queries of the held-out pairs from the easiest to the hardest, evenly spaced by rank, and their best documents.

    They are those of the evaluation itself: nothing is embedded again.
    """
    data = read_retrieval(workdir.data / HELDOUT)
    rankings = read_rankings(output_of(workdir, system), HELDOUT)
    order = sorted(rankings, key=lambda query: rankings[query].rank or len(data.corpus) + 1)
    places = (
        np.linspace(0, len(order) - 1, SHOWN_QUERIES + 1, dtype=int)[:-1].tolist() if order else []
    )
    shown = []
    for query in (order[place] for place in places):
        relevant = data.relevant.get(query, {})
        best = [
            Neighbour(name, data.corpus[name].text, score, relevant.get(name, 0) > 0)
            for name, score in rankings[query].best
        ]
        shown.append(Search(data.queries[query], best, rankings[query].rank))
    return shown


def next_command(config: Config, workdir: Workdir) -> str:
    """Something worth typing after this run."""
    if config.data.harvest is None:
        return f"e5jax eval --model={workdir.export} --benchmark='MTEB(eng, v1)' --output={workdir.root / 'mteb-eng-v1'}"
    longer = workdir.root.parent / "longer"
    return f"launch/train.sh configs/quickstart.py --workdir={longer} --config.pretrain.optim.steps=1000"
