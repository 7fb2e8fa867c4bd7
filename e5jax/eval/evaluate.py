"""Evaluates a system on tasks with mteb, resumably: each task's result is a file of its own.

Neither mteb's cache nor, for local tasks, the network is used.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

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
from e5jax.eval.queries import record_queries
from e5jax.eval.tasks import LocalRetrieval, describe
from e5jax.jsonl import read_object
from e5jax.report.results import MAIN
from e5jax.workdir.directory import atomic_output, write_text

# Everything else that mteb computes is in its own JSON.
METRICS = (MAIN, "ndcg_at_10", "recall_at_10", "recall_at_100", "mrr_at_10")
SETTINGS = "settings.json"


def evaluate(
    system: AbsEncoder | SearchProtocol,
    tasks: Sequence[AbsTask],
    output: Path,
    settings: Mapping[str, str | None] | None = None,
) -> dict[str, dict[str, float]]:
    """Evaluates and returns the metrics by task; writes mteb's result to `output/TASK.json`.

    With `settings` (everything besides the data that decides a score) tasks that have a result
    are not run again, and a folder with results of other settings is refused.
    """
    output.mkdir(parents=True, exist_ok=True)
    if settings is not None:
        _claim(output / SETTINGS, settings)
    if not sys.stderr.isatty():
        disable_progress_bars()  # the bars of `datasets` do not check where they write
    metrics = {}
    for task in tasks:
        result = _result(system, task, output, resume=settings is not None)
        entries = describe(task).entries(result.scores)
        assert entries, "a result that lacks something does not count as finished"
        metrics[task.metadata.name] = average_metrics(entries)
    return metrics


def average_metrics(entries: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Averages over splits and subsets of the metrics that this type of task has."""
    return {
        name: float(np.mean([entry[name] for entry in entries]))
        for name in METRICS
        if all(entry.get(name) is not None for entry in entries)
    }


def _claim(path: Path, settings: Mapping[str, str | None]) -> None:
    if not path.is_file():
        write_text(path, json.dumps(settings, indent=2) + "\n")
        return
    old = read_object(path)
    changed = [
        f"{name}: {old.get(name)!r} there, {settings.get(name)!r} here"
        for name in sorted({*old, *settings})
        if old.get(name) != settings.get(name)
    ]
    if changed:
        raise ConfigError(
            f"--output={path.parent}: holds results of another evaluation ({'; '.join(changed)}); "
            "choose another --output, or repeat the first command to resume"
        )


def _result(
    system: AbsEncoder | SearchProtocol, task: AbsTask, output: Path, *, resume: bool
) -> TaskResult:
    path = output / f"{task.metadata.name}.json"
    if isinstance(task, AbsTaskAggregate):
        # Always from its parts: its own file lacks their splits and subsets.
        parts = [_result(system, part, output, resume=resume) for part in task.tasks]
        result = task.combine_task_results(parts)
    elif resume and (finished := _finished(path, task)):
        return finished
    else:
        result = _run(system, task, output)
    with atomic_output(path) as temporary:
        result.to_disk(temporary)
    return result


def _finished(path: Path, task: AbsTask) -> TaskResult | None:
    """The stored result for the task's splits and subsets, if it has them all for the same data.

    The file may hold more, from an evaluation on other subsets.
    """
    if not path.is_file():
        return None
    result = TaskResult.from_disk(path)
    of = describe(task)
    if result.dataset_revision != task.metadata.revision or of.entries(result.scores) is None:
        return None
    scores = {
        split: [entry for entry in result.scores[split] if entry["hf_subset"] in of.subsets]
        for split in of.splits
    }
    return result.model_copy(update={"scores": scores})


def _run(system: AbsEncoder | SearchProtocol, task: AbsTask, output: Path) -> TaskResult:
    show_progress = sys.stderr.isatty()
    is_local = isinstance(task, LocalRetrieval)
    if isinstance(system, InstructEncoder):
        system.limit = (task.limit if is_local else None) or system.default_limit
    record = record_queries(task) if isinstance(task, AbsTaskRetrieval) else None
    results = mteb.evaluate(
        # EncoderProtocol also prescribes a constructor, which only mteb's command line calls.
        cast(EncoderProtocol | SearchProtocol, system),
        task,
        cache=None,
        co2_tracker=False,
        show_progress_bar=show_progress,
        encode_kwargs={"batch_size": 32, "show_progress_bar": show_progress},
    )
    if record is not None:
        record.write(output, task.metadata.name, rankings=is_local)
    return results.task_results[0]
