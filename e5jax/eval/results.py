"""Scores of one system: a folder of mteb's results, or a column of the paper's table. Folders flow in, scores by task flow out."""

import csv
import json
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from e5jax.errors import ConfigError
from e5jax.eval.queries import read_queries
from e5jax.eval.scope import TaskScope
from e5jax.eval.tasks import paper_scopes

TABLE = Path(__file__).with_name("paper.tsv")  # arXiv 2401.00368, table 17
PAPER = "paper"


class Score(NamedTuple):
    """Of one task: its main score as mteb gives it, from 0 to 1 or -1 to 1."""

    main: float
    seconds: float | None = None  # that the evaluation took
    revision: str = ""  # of the data
    file: str = ""  # where it is from


class Results(NamedTuple):
    """Of one system, on the tasks of an evaluation."""

    name: str
    tasks: Mapping[str, Score]
    folder: Path | None = None
    left_out: Mapping[str, str] = MappingProxyType(
        {}
    )  # why the scores of a task cannot be compared, by task

    def queries(self, task: str, scope: TaskScope) -> dict[str, float]:
        """Scores by query, where the folder has them."""
        return scope.queries(read_queries(self.folder, task)) if self.folder else {}


@cache
def paper_table() -> tuple[tuple[str, ...], MappingProxyType[str, tuple[str, tuple[float, ...]]]]:
    """Names of the columns, and (category, scores in per cent) by task."""
    with TABLE.open(encoding="utf-8", newline="") as file:
        header, *rows = csv.reader(file, delimiter="\t")
    return tuple(header[2:]), MappingProxyType(
        {task: (kind, tuple(map(float, scores))) for kind, task, *scores in rows}
    )


def find_results(said: str, scope: Mapping[str, TaskScope]) -> Results:
    """From `NAME=DIR`, `DIR`, `paper` or `paper:COLUMN`. Raises ConfigError for what is none of these."""
    if said == PAPER or said.startswith(f"{PAPER}:"):
        return _of_paper(said, scope)
    name, _, folder = said.rpartition("=")
    return read_results(name or Path(folder).resolve().name, Path(folder), scope)


def _of_paper(said: str, scope: Mapping[str, TaskScope]) -> Results:
    columns, rows = paper_table()
    column = said.partition(":")[2] or columns[0]
    if column not in columns:
        raise ConfigError(f"--beside={said}: the paper has the columns {', '.join(columns)}")
    number = columns.index(column)
    published = {
        task: Score(scores[number] / 100, file=TABLE.name)
        for task, (_, scores) in rows.items()
        if task in scope
    }
    others = {
        task: f"the paper's score is of {of.label}, this one of {scope[task].label}"
        for task, of in paper_scopes().items()
        if task in published and not of.same_data(scope[task])
    }
    return Results(
        said,
        {task: score for task, score in published.items() if task not in others},
        left_out=others,
    )


def read_results(name: str, folder: Path, scope: Mapping[str, TaskScope]) -> Results:
    """The results of mteb in a folder and below, whoever wrote them, of the splits and subsets in `scope`; others are left out."""
    if not folder.is_dir():
        raise ConfigError(f"--beside={folder}: there is no such folder")
    files: dict[str, Path] = {}
    tasks: dict[str, Score] = {}
    left_out: dict[str, str] = {}
    for path, values in _results_of_mteb(folder):
        task = values["task_name"]
        if task in files:
            raise ConfigError(
                f"{path}: {task} is also in {files[task]}; give a folder with the results of one model"
            )
        files[task] = path
        if task not in scope:
            continue
        if (score := _score(values, path, scope[task])) is None:
            left_out[task] = (
                f"{path} has scores of {_places(values)}, and the task here is {scope[task].label}"
            )
        else:
            tasks[task] = score
    if not files:
        raise ConfigError(f"--beside={folder}: holds no results of mteb")
    return Results(name, tasks, folder, left_out)


def _results_of_mteb(folder: Path) -> Iterator[tuple[Path, dict]]:
    for path in sorted(folder.rglob("*.json")):
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ConfigError(f"{path}: not JSON ({error})") from error
        if isinstance(values, dict) and "task_name" in values and "scores" in values:
            yield path, values


def _score(values: dict, path: Path, scope: TaskScope) -> Score | None:
    """The mean of the main score over the task's splits and subsets; None where the file lacks one of them."""
    entries = scope.entries(values["scores"])
    if entries is None:
        return None
    scores = [
        float(entry["main_score"]) for entry in entries if entry.get("main_score") is not None
    ]
    if len(scores) < len(entries):
        raise ConfigError(f"{path}: has no main_score; evaluate the task again")
    return Score(
        float(np.mean(scores)),
        values.get("evaluation_time"),
        values.get("dataset_revision") or "",
        str(path),
    )


def _places(values: dict) -> str:
    """The splits and subsets that a file has scores of."""
    places = [
        f"{split}/{entry['hf_subset']}"
        for split, entries in values["scores"].items()
        for entry in entries
    ]
    return ", ".join(places) or "nothing"
