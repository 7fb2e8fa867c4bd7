"""Tasks to evaluate: MTEB's by name, those of a benchmark, and local folders in BEIR layout.

Names flow in, mteb tasks flow out; `describe` says what a task's score is an average over.
"""

import difflib
import hashlib
import os
import warnings
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from types import MappingProxyType

import mteb
from datasets import Dataset
from mteb.abstasks.abstask import AbsTask
from mteb.abstasks.aggregated_task import AbsTaskAggregate
from mteb.abstasks.retrieval import AbsTaskRetrieval
from mteb.abstasks.retrieval_dataset_loaders import RetrievalSplitData
from mteb.abstasks.task_metadata import TaskMetadata

from e5jax.data.beir import FILES, find_file, read_retrieval
from e5jax.errors import ConfigError
from e5jax.report.results import DEFAULT, Task

# The 56 tasks of the paper's table, with the splits and subsets of its scores.
PAPER_BENCHMARK = "MTEB(eng, v1)"


class LocalRetrieval(AbsTaskRetrieval):
    """A folder in BEIR layout (`data/beir.py`) as an mteb task, without network access.

    `limit`: tokens to read of a text, if the folder sets it. `notes`: what the data lack.
    Raises ConfigError `file:line: reason` for the first thing wrong with the folder.
    """

    def __init__(self, folder: Path) -> None:
        data = read_retrieval(folder)
        self.limit, self.notes = data.limit, data.notes
        self.metadata = TaskMetadata(
            name=folder.resolve().name,
            description=f"Retrieval over {folder}",
            type="Retrieval",
            category="t2t",
            # mteb types the keys as an enum.
            prompt={"query": data.instruction},  # pyright: ignore[reportArgumentType]
            dataset={"path": str(folder.resolve()), "revision": _revision(folder)},
            eval_splits=["test"],
            eval_langs=["eng-Latn"],
            main_score=data.score,
        )
        super().__init__()
        split = RetrievalSplitData(
            corpus=Dataset.from_list(
                [{"id": id_, **document._asdict()} for id_, document in data.corpus.items()]
            ),
            queries=Dataset.from_list(
                [{"id": id_, "text": text} for id_, text in data.queries.items()]
            ),
            relevant_docs=data.relevant,
            top_ranked=None,
        )
        self.dataset = {DEFAULT: {"test": split}}
        self.data_loaded = True  # so that mteb neither downloads nor unloads
        self.ignore_identical_ids = data.skips_own


def _revision(folder: Path) -> str:
    """A hash of the data: results of the same revision can be compared."""
    digest = hashlib.sha256()
    for name in FILES:
        digest.update(find_file(folder, name).read_bytes())
    return digest.hexdigest()[:16]


def find_tasks(names: str, benchmark: str | None = None) -> list[AbsTask]:
    """The tasks that `names` lists (`A,B`: MTEB tasks or folders), and all of a benchmark.

    Raises ConfigError for an unknown name, for no task, and for two tasks of the same name.
    """
    tasks = [
        *(find_task(name) for name in names.split(",") if name),
        *(find_benchmark(benchmark) if benchmark else ()),
    ]
    if not tasks:
        raise ConfigError(
            "--tasks is empty: name MTEB tasks or folders in BEIR layout, or a --benchmark"
        )
    selected = [task.metadata.name for task in tasks]
    if repeated := {name for name in selected if selected.count(name) > 1}:
        raise ConfigError(
            f"--tasks names {', '.join(sorted(repeated))} more than once; "
            "results are stored by name"
        )
    return tasks


def find_task(name: str) -> AbsTask:
    """A task by its MTEB name, or a folder in BEIR layout.

    A task of the paper's table has the table's split and subset; other tasks have all of theirs.
    """
    if os.sep in name or Path(name).is_dir():
        return LocalRetrieval(Path(name))
    if name in paper_tasks():
        return next(task for task in find_benchmark(PAPER_BENCHMARK) if task.metadata.name == name)
    try:
        return mteb.get_task(name)
    except KeyError as error:
        raise ConfigError(
            f"--tasks: there is no MTEB task {name!r} and no such folder"
            f"{_suggestion(name, _task_names())}"
        ) from error


def find_benchmark(name: str) -> list[AbsTask]:
    """The tasks of a benchmark, with its splits and subsets."""
    known = [benchmark.name for benchmark in mteb.get_benchmarks()]
    if name not in known:
        raise ConfigError(f"--benchmark: MTEB has no {name!r}{_suggestion(name, known)}")
    return list(mteb.get_benchmark(name).tasks)


@cache
def paper_tasks() -> MappingProxyType[str, Task]:
    """The tasks of the paper's table, with the splits and subsets of its scores."""
    return MappingProxyType(
        {task.metadata.name: describe(task) for task in find_benchmark(PAPER_BENCHMARK)}
    )


def describe(task: AbsTask) -> Task:
    """Category, splits, subsets and notes of a task as it was selected.

    The result of an aggregate has one subset: the average over its parts.
    """
    is_aggregate = isinstance(task, AbsTaskAggregate)
    splits = task.metadata.eval_splits if is_aggregate else task.eval_splits
    subsets = (DEFAULT,) if is_aggregate else tuple(task.hf_subsets)
    notes = task.notes if isinstance(task, LocalRetrieval) else ()
    return Task(task.metadata.type, tuple(splits), subsets, notes)


def _task_names() -> list[str]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a warning for each superseded or beta task
        tasks = mteb.get_tasks(exclude_superseded=False, exclude_beta=False)
    return [task.metadata.name for task in tasks]


def _suggestion(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, known, n=3)
    return f"; did you mean {' or '.join(near)}?" if near else ""
