"""Means over tasks, never over those that are missing: a mean of fewer tasks than were meant is no mean of these.

Scores by task flow in, means with the number of tasks behind them flow out.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from e5jax.eval.results import Results

ORDER = (
    "Classification",
    "Clustering",
    "PairClassification",
    "Reranking",
    "Retrieval",
    "STS",
    "Summarization",
)  # the paper's


class Mean(NamedTuple):
    """Of the main scores of `tasks` tasks of `of`; None unless all are there."""

    value: float | None
    tasks: int
    of: int


def mean(results: Results, tasks: Sequence[str]) -> Mean:
    """Of these tasks."""
    found = [results.tasks[task].main for task in tasks if task in results.tasks]
    whole = bool(tasks) and len(found) == len(tasks)
    return Mean(float(np.mean(found)) if whole else None, len(found), len(tasks))


def categories(scope: Mapping[str, str]) -> dict[str, list[str]]:
    """The tasks of each category, from the category of each task: in the paper's order, then as they come."""
    names = [
        *(name for name in ORDER if name in scope.values()),
        *(name for name in scope.values() if name not in ORDER),
    ]
    return {
        name: [task for task, of in scope.items() if of == name] for name in dict.fromkeys(names)
    }


def shared(systems: Sequence[Results], tasks: Sequence[str]) -> list[str]:
    """The tasks that every system has."""
    return [task for task in tasks if all(task in system.tasks for system in systems)]
