"""Runs systems on tasks: mteb's evaluation without its cache and without network for local tasks; task by task, resumable."""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

import mteb
import numpy as np
from datasets import disable_progress_bars
from mteb.abstasks.abstask import AbsTask
from mteb.abstasks.aggregated_task import AbsTaskAggregate
from mteb.abstasks.retrieval import AbsTaskRetrieval
from mteb.models.abs_encoder import AbsEncoder
from mteb.models.models_protocols import EncoderProtocol, SearchProtocol
from mteb.results import TaskResult

from e5jax.errors import ConfigError
from e5jax.eval.encoder import InstructEncoder
from e5jax.eval.queries import record_queries, write_queries, write_rankings
from e5jax.eval.retrieval import LocalRetrieval
from e5jax.eval.scope import TaskScope, scope_of
from e5jax.workdir.directory import atomic_output, write_text

# What a reader compares; everything else mteb computes is in its own JSON.
SCORES = ("main_score", "ndcg_at_10", "recall_at_10", "recall_at_100", "mrr_at_10")
SETTINGS = "settings.json"
System = AbsEncoder | SearchProtocol


def evaluate(
    system: System,
    tasks: Sequence[AbsTask],
    output: Path,
    settings: Mapping[str, str | None] | None = None,
) -> dict[str, dict[str, float]]:
    """Scores by task name; mteb's own result of each task goes to `output/TASK.json`, whole or not at all.

    With the `settings` that decide every score, tasks whose result is there are not run again, and a folder of results of other
    settings is refused.
    """
    output.mkdir(parents=True, exist_ok=True)
    if settings is not None:
        _claim(output / SETTINGS, settings)
    if not sys.stderr.isatty():
        disable_progress_bars()  # those of `datasets`, which do not look where they write
    results = [_result(system, task, output, resume=settings is not None) for task in tasks]
    return {
        task.metadata.name: scores(result, scope_of(task))
        for task, result in zip(tasks, results, strict=True)
    }


def scores(result: TaskResult, scope: TaskScope) -> dict[str, float]:
    """Means over the task's splits and subsets of the scores that this type of task has."""
    entries = scope.entries(result.scores)
    assert entries, "a result that lacks something is not taken for finished"
    return {
        name: float(np.mean([entry[name] for entry in entries]))
        for name in SCORES
        if name in entries[0]
    }


def _claim(path: Path, settings: Mapping[str, str | None]) -> None:
    if not path.is_file():
        write_text(path, json.dumps(settings, indent=2) + "\n")
        return
    held = json.loads(path.read_text(encoding="utf-8"))
    names = sorted({*held, *settings})
    if changed := [
        f"{name}: {held.get(name)!r} there, {settings.get(name)!r} here"
        for name in names
        if held.get(name) != settings.get(name)
    ]:
        raise ConfigError(
            f"--output={path.parent}: holds results of another evaluation ({'; '.join(changed)}); choose another --output, "
            "or repeat the first command to resume"
        )


def _result(system: System, task: AbsTask, output: Path, *, resume: bool) -> TaskResult:
    path = output / f"{task.metadata.name}.json"
    if isinstance(
        task, AbsTaskAggregate
    ):  # always from its parts: its own file does not say what they are means over
        result = task.combine_task_results(
            [_result(system, part, output, resume=resume) for part in task.tasks]
        )
    elif resume and (finished := _finished(path, task)):
        return finished
    else:
        result = _run(system, task, output)
    with atomic_output(path) as temporary:
        result.to_disk(temporary)
    return result


def _finished(path: Path, task: AbsTask) -> TaskResult | None:
    """The result that is there, if it is of the same data and lacks nothing; of its scores those of the task's splits and subsets.

    The file may hold more, of an evaluation on other subsets.
    """
    if not path.is_file():
        return None
    result = TaskResult.from_disk(path)
    scope = scope_of(task)
    if result.dataset_revision != task.metadata.revision or scope.entries(result.scores) is None:
        return None
    chosen = {
        split: [entry for entry in result.scores[split] if entry["hf_subset"] in scope.subsets]
        for split in scope.splits
    }
    return result.model_copy(update={"scores": chosen})


def _run(system: System, task: AbsTask, output: Path) -> TaskResult:
    show_progress = sys.stderr.isatty()
    if isinstance(system, InstructEncoder):
        own = task.limit if isinstance(task, LocalRetrieval) else None
        system.limit = own or system.usual_limit
    record = record_queries(task) if isinstance(task, AbsTaskRetrieval) else None
    # EncoderProtocol also prescribes a constructor, which only mteb's own command line calls.
    model = cast(EncoderProtocol | SearchProtocol, system)
    found = mteb.evaluate(
        model,
        task,
        cache=None,
        co2_tracker=False,
        show_progress_bar=show_progress,
        encode_kwargs={"batch_size": 32, "show_progress_bar": show_progress},
    )
    if record is not None and record.scores:
        write_queries(output, task.metadata.name, record.scores)
    if record is not None and isinstance(task, LocalRetrieval):
        (rankings,) = record.rankings.values()
        write_rankings(output, task.metadata.name, rankings)
    return found.task_results[0]
