"""Runs systems on tasks: mteb's evaluation without its cache and without network for local tasks."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import mteb
from datasets import disable_progress_bars
from mteb.abstasks.abstask import AbsTask
from mteb.models.abs_encoder import AbsEncoder
from mteb.models.models_protocols import EncoderProtocol, SearchProtocol
from mteb.results import TaskResult

# What a reader compares; everything else mteb computes is in its own JSON.
SCORES = ("main_score", "ndcg_at_10", "recall_at_10", "recall_at_100", "mrr_at_10")


def evaluate(system: AbsEncoder | SearchProtocol, tasks: Sequence[AbsTask], output: Path) -> dict[str, dict[str, float]]:
    """Scores by task name; mteb's own result of each task goes to `output/TASK.json`."""
    output.mkdir(parents=True, exist_ok=True)
    show_progress = sys.stderr.isatty()
    if not show_progress:
        disable_progress_bars()  # those of `datasets`, which do not look where they write
    # EncoderProtocol also prescribes a constructor, which only mteb's own command line calls.
    model = cast(EncoderProtocol | SearchProtocol, system)
    results = {}
    for task in tasks:
        found = mteb.evaluate(
            model,
            task,
            cache=None,
            co2_tracker=False,
            show_progress_bar=show_progress,
            encode_kwargs={"batch_size": 32, "show_progress_bar": show_progress},
        )
        result = found.task_results[0]
        result.to_disk(output / f"{result.task_name}.json")
        results[result.task_name] = _scores(result)
    return results


def _scores(result: TaskResult) -> dict[str, float]:
    """Means over splits and subsets of the scores that this type of task has."""
    first = next(iter(result.scores.values()))[0]
    return {name: float(result.get_score(getter=lambda scores, name=name: scores[name])) for name in SCORES if name in first}
