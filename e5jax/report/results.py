"""`results.json`: the scores of an evaluation, in one format for every command that writes them.

schema       1
model        name of the system that was evaluated; the others are there to compare
tasks        by task: category, splits, subsets, notes, seconds, revision, training_data
scores       by system, task and metric: a number from 0 to 1, or from -1 to 1
averages     by category and system: value (null where a task is missing), tasks, of
differences  by task and system: the model minus that system, over queries (may be empty)
vectors      by system: dimensions, precision, bytes_per_vector, queries_per_second (may be
             empty; only `e5jax compact` measures them)
settings     what the scores depend on besides the data
notes        remarks on the scores
hours, price, cost
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from e5jax.errors import ConfigError
from e5jax.jsonl import read_object
from e5jax.workdir.directory import write_text

SCHEMA = 1
MAIN = "main_score"  # the metric that mteb names for each task
ALL, SHARED = "all tasks", "shared by all"
DEFAULT = "default"  # mteb's name for the only subset of a task
CATEGORIES = (  # in the order of the paper, arXiv 2401.00368
    "Classification",
    "Clustering",
    "PairClassification",
    "Reranking",
    "Retrieval",
    "STS",
    "Summarization",
)
_MAX_SUBSETS = 8  # in a label
_AGAIN = "delete the file and run the command again (finished tasks are not evaluated again)"

Scores = Mapping[str, Mapping[str, Mapping[str, float]]]  # by system, task and metric


class Task(NamedTuple):
    """What the scores of a task are averages over, and how the model was evaluated on it."""

    category: str
    splits: tuple[str, ...]
    subsets: tuple[str, ...]  # every split is scored on every subset
    notes: tuple[str, ...] = ()  # what the data lack
    seconds: float | None = None
    revision: str = ""  # of the data
    training_data: str = ""  # what is known of the task's texts in the training data

    @property
    def label(self) -> str:
        """For example `test`, `test/en` or `validation,test/en,de`."""
        splits = ",".join(self.splits)
        if self.subsets == (DEFAULT,):
            return splits
        more = f",… ({len(self.subsets)})" if len(self.subsets) > _MAX_SUBSETS else ""
        return f"{splits}/{','.join(self.subsets[:_MAX_SUBSETS])}{more}"

    def same_data(self, other: "Task") -> bool:
        """Whether both have the same splits and subsets, in any order."""
        return (set(self.splits), set(self.subsets)) == (set(other.splits), set(other.subsets))

    def entries(
        self, scores: Mapping[str, Sequence[Mapping[str, Any]]]
    ) -> list[Mapping[str, Any]] | None:
        """The entries of an mteb result for these splits and subsets, or None if one is missing."""
        by_part = {
            (split, entry["hf_subset"]): entry
            for split, entries in scores.items()
            for entry in entries
        }
        parts = [(split, subset) for split in self.splits for subset in self.subsets]
        return [by_part[part] for part in parts] if by_part.keys() >= set(parts) else None


class Average(NamedTuple):
    """The average of the main score over tasks; `value` is None unless all `of` tasks have one."""

    value: float | None
    tasks: int
    of: int


class Difference(NamedTuple):
    """Mean of ours minus theirs over queries, with its 95 % interval and two-sided p."""

    queries: int
    mean: float
    low: float
    high: float
    p: float


class Vectors(NamedTuple):
    """How the vectors of a system are stored, and how fast they are searched."""

    dimensions: int
    precision: str
    bytes_per_vector: int
    queries_per_second: float


class Results(NamedTuple):
    """The content of `results.json`."""

    model: str
    tasks: Mapping[str, Task]
    scores: Scores
    differences: Mapping[str, Mapping[str, Difference]] = {}
    vectors: Mapping[str, Vectors] = {}
    settings: Mapping[str, str | None] = {}
    notes: Sequence[str] = ()
    price: float | None = None  # of an hour

    @property
    def hours(self) -> float:
        """Time of the evaluation, over the tasks for which it is known."""
        return sum(task.seconds or 0.0 for task in self.tasks.values()) / 3_600

    @property
    def cost(self) -> float | None:
        """Price of the evaluation."""
        return None if self.price is None else self.hours * self.price

    @property
    def categories(self) -> dict[str, list[str]]:
        """Tasks by category: first in the order of the paper, then in their own."""
        present = [task.category for task in self.tasks.values()]
        names = [*(name for name in CATEGORIES if name in present), *present]
        return {
            name: [task for task, of in self.tasks.items() if of.category == name]
            for name in dict.fromkeys(names)
        }

    def average(self, system: str, tasks: Sequence[str]) -> Average:
        """The average over these tasks."""
        values = [self.scores[system][task][MAIN] for task in tasks if task in self.scores[system]]
        complete = bool(tasks) and len(values) == len(tasks)
        return Average(float(np.mean(values)) if complete else None, len(values), len(tasks))

    @property
    def averages(self) -> dict[str, dict[str, Average]]:
        """Averages by category, over all tasks, and over the tasks that every system has."""
        groups = {**self.categories, ALL: list(self.tasks)}
        if len(self.scores) > 1:
            groups[SHARED] = [
                task for task in self.tasks if all(task in by for by in self.scores.values())
            ]
        return {
            name: {system: self.average(system, tasks) for system in self.scores}
            for name, tasks in groups.items()
        }


def write_results(path: Path, results: Results, command: str | None = None) -> None:
    """Writes `results.json` atomically; see `write_text` for `command`."""
    values = {
        "schema": SCHEMA,
        "model": results.model,
        "tasks": _plain(results.tasks),
        "scores": results.scores,
        "averages": {name: _plain(by_system) for name, by_system in results.averages.items()},
        "differences": {task: _plain(by) for task, by in results.differences.items()},
        "vectors": _plain(results.vectors),
        "settings": dict(results.settings),
        "notes": list(results.notes),
        "hours": results.hours,
        "price": results.price,
        "cost": results.cost,
    }
    write_text(path, json.dumps(values, indent=2, ensure_ascii=False) + "\n", command)


def _plain(values: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    return {name: value._asdict() for name, value in values.items()}


def read_results(path: Path) -> Results:
    """Reads and checks `results.json`. Raises ConfigError for another schema or a wrong value."""
    values = read_object(path)
    if values.get("schema") != SCHEMA:
        raise ConfigError(
            f"{path}: schema={values.get('schema')!r}, and this version reads {SCHEMA}; {_AGAIN}"
        )
    try:
        results = Results(
            model=values["model"],
            tasks={name: _task(task) for name, task in values["tasks"].items()},
            scores={
                system: {
                    task: {metric: value + 0.0 for metric, value in metrics.items()}
                    for task, metrics in by_task.items()
                }
                for system, by_task in values["scores"].items()
            },
            differences={
                task: {system: Difference(**value) for system, value in by_system.items()}
                for task, by_system in values["differences"].items()
            },
            vectors={system: Vectors(**value) for system, value in values["vectors"].items()},
            settings=dict(values["settings"]),
            notes=tuple(values["notes"]),
            price=values["price"],
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"{path}: damaged ({error}); {_AGAIN}") from error
    has_main = all(
        task in results.tasks and MAIN in metrics
        for by_task in results.scores.values()
        for task, metrics in by_task.items()
    )
    if results.model not in results.scores or not has_main:
        raise ConfigError(f"{path}: lacks the {MAIN} or the description of a task; {_AGAIN}")
    return results


def _task(values: Mapping[str, Any]) -> Task:
    lists = {name: values[name] for name in ("splits", "subsets", "notes")}
    if not all(isinstance(value, list) for value in lists.values()):
        raise TypeError("splits, subsets and notes must be lists")
    return Task(**{**values, **{name: tuple(value) for name, value in lists.items()}})
