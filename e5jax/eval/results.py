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

TABLE = Path(__file__).with_name("paper.tsv")  # arXiv 2401.00368, table 17
PAPER = "paper"


class Score(NamedTuple):
    """Of one task: its main score as mteb gives it, from 0 to 1 or -1 to 1."""

    main: float
    seconds: float | None = None  # that the evaluation took
    revision: str = ""  # of the data
    file: str = ""  # where it is from


class Results(NamedTuple):
    """Of one system."""

    name: str
    tasks: Mapping[str, Score]
    folder: Path | None = None

    def queries(self, task: str) -> dict[str, float]:
        """Scores by query, where the folder has them."""
        return read_queries(self.folder, task) if self.folder else {}


@cache
def paper_table() -> tuple[tuple[str, ...], MappingProxyType[str, tuple[str, tuple[float, ...]]]]:
    """Names of the columns, and (category, scores in per cent) by task."""
    with TABLE.open(encoding="utf-8", newline="") as file:
        header, *rows = csv.reader(file, delimiter="\t")
    return tuple(header[2:]), MappingProxyType({task: (kind, tuple(map(float, scores))) for kind, task, *scores in rows})


def find_results(said: str) -> Results:
    """From `NAME=DIR`, `DIR`, `paper` or `paper:COLUMN`. Raises ConfigError for what is none of these."""
    if said == PAPER or said.startswith(f"{PAPER}:"):
        return _of_paper(said)
    name, _, folder = said.rpartition("=")
    return read_results(name or Path(folder).resolve().name, Path(folder))


def _of_paper(said: str) -> Results:
    columns, rows = paper_table()
    column = said.partition(":")[2] or columns[0]
    if column not in columns:
        raise ConfigError(f"--beside={said}: the paper has the columns {', '.join(columns)}")
    number = columns.index(column)
    return Results(said, {task: Score(scores[number] / 100, file=TABLE.name) for task, (_, scores) in rows.items()})


def read_results(name: str, folder: Path) -> Results:
    """All results of mteb in a folder and below, whoever wrote them."""
    if not folder.is_dir():
        raise ConfigError(f"--beside={folder}: there is no such folder")
    tasks: dict[str, Score] = {}
    for path, values in _found(folder):
        task = values["task_name"]
        if task in tasks:
            raise ConfigError(f"{path}: {task} is also in {tasks[task].file}; give a folder with the results of one model")
        tasks[task] = _score(values, path)
    if not tasks:
        raise ConfigError(f"--beside={folder}: holds no results of mteb")
    return Results(name, tasks, folder)


def _found(folder: Path) -> Iterator[tuple[Path, dict]]:
    for path in sorted(folder.rglob("*.json")):
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ConfigError(f"{path}: not JSON ({error})") from error
        if isinstance(values, dict) and "task_name" in values and "scores" in values:
            yield path, values


def _score(values: dict, path: Path) -> Score:
    """The mean of the main score over splits and subsets."""
    found = [subset["main_score"] for subsets in values["scores"].values() for subset in subsets]
    if not found or any(score is None for score in found):
        raise ConfigError(f"{path}: has no main_score; evaluate the task again")
    return Score(float(np.mean(found)), values.get("evaluation_time"), values.get("dataset_revision") or "", str(path))
