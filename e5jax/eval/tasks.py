"""Tasks by name: MTEB's, those of a benchmark, and folders in BEIR layout."""

import difflib
import os
import warnings
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from types import MappingProxyType

import mteb
from mteb.abstasks.abstask import AbsTask

from e5jax.errors import ConfigError
from e5jax.eval.retrieval import load_task
from e5jax.eval.scope import TaskScope, scope_of

PAPER_BENCHMARK = (
    "MTEB(eng, v1)"  # the 56 tasks of the paper's table, with the splits and subsets of its scores
)


def find_tasks(names: str, benchmark: str | None = None) -> list[AbsTask]:
    """Tasks from `A,B`, each an MTEB task name or a folder, and all of a benchmark. Raises ConfigError for what is neither."""
    tasks = [
        *(find_task(name) for name in names.split(",") if name),
        *(find_benchmark(benchmark) if benchmark else ()),
    ]
    if not tasks:
        raise ConfigError(
            "--tasks is empty: name MTEB tasks or folders in BEIR layout, or a --benchmark"
        )
    seen = [task.metadata.name for task in tasks]
    if twice := {name for name in seen if seen.count(name) > 1}:
        raise ConfigError(
            f"--tasks names {', '.join(sorted(twice))} more than once; results are stored by name"
        )
    return tasks


def find_task(name: str) -> AbsTask:
    """One task, by its MTEB name or as a folder in BEIR layout.

    A task of the paper's table has the table's split and subset; every other task all that mteb gives it.
    """
    if os.sep in name or Path(name).is_dir():
        return load_task(Path(name))
    if name in paper_scopes():
        return next(task for task in find_benchmark(PAPER_BENCHMARK) if task.metadata.name == name)
    try:
        return mteb.get_task(name)
    except KeyError as error:
        raise ConfigError(
            f"--tasks: there is no MTEB task {name!r} and no such folder{_close(name, _all_tasks())}"
        ) from error


def find_benchmark(name: str) -> list[AbsTask]:
    """The tasks of a benchmark, with its own splits and subsets."""
    known = [benchmark.name for benchmark in mteb.get_benchmarks()]
    if name not in known:
        raise ConfigError(f"--benchmark: MTEB has no {name!r}{_close(name, known)}")
    return list(mteb.get_benchmark(name).tasks)


@cache
def paper_scopes() -> MappingProxyType[str, TaskScope]:
    """Splits and subsets of the scores in the paper's table, by task."""
    return MappingProxyType(
        {task.metadata.name: scope_of(task) for task in find_benchmark(PAPER_BENCHMARK)}
    )


def _all_tasks() -> list[str]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # each of MTEB's superseded and beta tasks warns that it is
        return [
            task.metadata.name
            for task in mteb.get_tasks(exclude_superseded=False, exclude_beta=False)
        ]


def _close(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, known, n=3)
    return f"; did you mean {' or '.join(near)}?" if near else ""
