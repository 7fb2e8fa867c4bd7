"""Compares a model with other systems: folders of mteb's results, or columns of the paper's table.

Names of systems flow in, their scores side by side flow out as one `Results`.
"""

import csv
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from e5jax.errors import ConfigError
from e5jax.eval.contamination import Manifest, training_data
from e5jax.eval.evaluate import average_metrics
from e5jax.eval.queries import read_queries
from e5jax.eval.tasks import paper_tasks
from e5jax.jsonl import read_json
from e5jax.report.results import MAIN, Difference, Results, Task

TABLE = Path(__file__).with_name("paper.tsv")  # arXiv 2401.00368, table 17
PAPER = "paper"
RESAMPLES = 10_000
_MAX_DRAWS = 2_000_000  # at once


class Run(NamedTuple):
    """The evaluation of a system on one task."""

    metrics: Mapping[str, float]
    seconds: float | None = None
    revision: str = ""  # of the data


class System(NamedTuple):
    """The scores of one system on the tasks of an evaluation."""

    name: str
    runs: Mapping[str, Run]  # by task
    folder: Path | None = None  # of mteb's results
    left_out: Mapping[str, str] = MappingProxyType({})  # task -> why its score cannot be compared

    def queries(self, name: str, task: Task) -> dict[str, float]:
        """The stored scores by query of a task."""
        return read_queries(self.folder, name, task) if self.folder else {}


@cache
def paper_table() -> tuple[tuple[str, ...], MappingProxyType[str, tuple[float, ...]]]:
    """The systems of the paper's table, and their scores in per cent by task."""
    with TABLE.open(encoding="utf-8", newline="") as file:
        header, *rows = csv.reader(file, delimiter="\t")
    scores = {task: tuple(map(float, scores)) for _, task, *scores in rows}
    return tuple(header[2:]), MappingProxyType(scores)


def find_system(text: str, tasks: Mapping[str, Task]) -> System:
    """The system that `NAME=DIR`, `DIR`, `paper` or `paper:COLUMN` names, or ConfigError."""
    if text == PAPER or text.startswith(f"{PAPER}:"):
        return _paper_system(text, tasks)
    name, _, folder = text.rpartition("=")
    return read_system(name or Path(folder).resolve().name, Path(folder), tasks)


def _paper_system(text: str, tasks: Mapping[str, Task]) -> System:
    columns, rows = paper_table()
    column = text.partition(":")[2] or columns[0]
    if column not in columns:
        raise ConfigError(f"--beside={text}: the paper has the columns {', '.join(columns)}")
    runs, left_out = {}, {}
    for name, published in paper_tasks().items():
        if name not in tasks:
            continue
        if published.same_data(tasks[name]):
            runs[name] = Run({MAIN: rows[name][columns.index(column)] / 100})
        else:
            left_out[name] = (
                f"the paper's score is for {published.label}, and this one for {tasks[name].label}"
            )
    return System(text, runs, left_out=left_out)


def read_system(name: str, folder: Path, tasks: Mapping[str, Task]) -> System:
    """Reads mteb's results in a folder and its subfolders, for the splits and subsets of `tasks`.

    Results for other splits or subsets are left out. Raises ConfigError for a folder without
    results or with two results of one task.
    """
    if not folder.is_dir():
        raise ConfigError(f"--beside={folder}: there is no such folder")
    files: dict[str, Path] = {}
    runs: dict[str, Run] = {}
    left_out: dict[str, str] = {}
    for path, result in _mteb_results(folder):
        task = result["task_name"]
        if task in files:
            raise ConfigError(
                f"{path}: {task} is also in {files[task]}; "
                "give a folder with the results of one model"
            )
        files[task] = path
        if task not in tasks:
            continue
        if run := _run(result, path, tasks[task]):
            runs[task] = run
        else:
            left_out[task] = (
                f"{path} has scores for {_parts(result)}, and the task here is {tasks[task].label}"
            )
    if not files:
        raise ConfigError(f"--beside={folder}: holds no results of mteb")
    return System(name, runs, folder, left_out)


def _mteb_results(folder: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    for path in sorted(folder.rglob("*.json")):
        values = read_json(path)
        if isinstance(values, dict) and "task_name" in values and "scores" in values:
            yield path, values


def _run(result: Mapping[str, Any], path: Path, task: Task) -> Run | None:
    """Averages over the task's splits and subsets; None if the file lacks one of them."""
    entries = task.entries(result["scores"])
    if entries is None:
        return None
    metrics = average_metrics(entries)
    if MAIN not in metrics:
        raise ConfigError(f"{path}: has no {MAIN}; evaluate the task again")
    return Run(metrics, result.get("evaluation_time"), result.get("dataset_revision") or "")


def _parts(result: Mapping[str, Any]) -> str:
    """The splits and subsets that a result has scores for."""
    parts = [
        f"{split}/{entry['hf_subset']}"
        for split, entries in result["scores"].items()
        for entry in entries
    ]
    return ", ".join(parts) or "nothing"


# --- side by side ------------------------------------------------------------------------------


def compare(
    systems: Sequence[System],
    model: str,
    tasks: Mapping[str, Task],
    *,
    manifests: Iterable[Manifest] = (),
    settings: Mapping[str, str | None],
    notes: Sequence[str] = (),
    price: float | None = None,
) -> Results:
    """Collects scores, differences by query, and remarks. `model` names one of the systems."""
    manifests = list(manifests)
    own = next(system for system in systems if system.name == model)
    details = {}
    for name, task in tasks.items():
        known = training_data(name, task, manifests) if manifests else ""
        details[name] = task._replace(training_data=known)
        if run := own.runs.get(name):
            details[name] = details[name]._replace(seconds=run.seconds, revision=run.revision)
    differences = {name: _differences(own, systems, name, task) for name, task in tasks.items()}
    data_notes = [f"{name}: {note}" for name, task in tasks.items() for note in task.notes]
    left_out = [
        f"{task}: {system.name} left out: {reason}"
        for system in systems
        for task, reason in system.left_out.items()
    ]
    return Results(
        model=model,
        tasks=details,
        scores={
            system.name: {task: run.metrics for task, run in system.runs.items() if task in tasks}
            for system in systems
        },
        differences={name: by_system for name, by_system in differences.items() if by_system},
        settings=settings,
        notes=[*data_notes, *left_out, *notes],
        price=price,
    )


def _differences(
    own: System, systems: Sequence[System], name: str, task: Task
) -> dict[str, Difference]:
    ours = own.queries(name, task)
    results = {
        system.name: difference(ours, system.queries(name, task))
        for system in systems
        if system is not own
    }
    return {system: result for system, result in results.items() if result}


def difference(
    ours: Mapping[str, float], theirs: Mapping[str, float], seed: int = 0
) -> Difference | None:
    """The paired bootstrap over queries (Efron; Sakai, SIGIR 2006); None for other queries."""
    if not ours or ours.keys() != theirs.keys():
        return None
    differences = np.array([ours[query] - theirs[query] for query in sorted(ours)])
    random, count = np.random.default_rng(seed), len(differences)
    part = max(1, _MAX_DRAWS // count)
    sizes = [min(part, RESAMPLES - start) for start in range(0, RESAMPLES, part)]
    draws = (random.integers(0, count, (size, count)) for size in sizes)
    means = np.concatenate([differences[drawn].mean(axis=1) for drawn in draws])
    low, high = np.quantile(means, [0.025, 0.975])
    # Both tails; the sample itself is one of the resamples, so that p is never 0.
    tail = min(np.sum(means <= 0), np.sum(means >= 0))
    p = min(1.0, 2 * (float(tail) + 1) / (RESAMPLES + 1))
    return Difference(count, float(differences.mean()), float(low), float(high), p)
