"""Scores and rankings of single queries, which mteb averages and does not store.

The scores show whether two models differ by more than chance; the rankings serve as examples.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from mteb.abstasks.retrieval import AbsTaskRetrieval

from e5jax.report.results import Task
from e5jax.workdir.directory import write_text

_SCORES, _RANKINGS = "queries", "rankings"  # folders
_STORED = 3  # documents of a ranking
_MEASURES = {  # mteb's name for an average, pytrec_eval's name for its terms
    "ndcg_at_10": "ndcg_cut_10",
    "ndcg_at_1": "ndcg_cut_1",
    "map_at_1000": "map_cut_1000",
}


class Ranking(NamedTuple):
    """The best documents of a query with their scores.

    `rank` is that of the best relevant document, from 1, or None outside of mteb's best thousand.
    """

    rank: int | None
    best: list[tuple[str, float]]


class QueryResults(NamedTuple):
    """Scores and rankings by `split/subset` and query."""

    scores: dict[str, dict[str, float]]  # empty if the main score is not one of single queries
    rankings: dict[str, dict[str, Ranking]]

    def write(self, output: Path, task: str, *, rankings: bool) -> None:
        """Writes `queries/TASK.json` and, for a local folder, `rankings/TASK.json`."""
        if self.scores:
            write_text(output / _SCORES / f"{task}.json", json.dumps(self.scores) + "\n")
        if rankings:
            (by_query,) = self.rankings.values()
            values = {query: ranking._asdict() for query, ranking in by_query.items()}
            write_text(output / _RANKINGS / f"{task}.json", json.dumps(values) + "\n")


def record_queries(task: AbsTaskRetrieval) -> QueryResults:
    """Returns an empty record, which the task's next evaluation fills."""
    record = QueryResults({}, {})
    measure = _MEASURES.get(task.metadata.main_score)
    original = type(task).task_specific_scores  # the only hook that receives scores by query

    def task_specific_scores(
        scores: dict[str, dict[str, float]],
        qrels: Mapping[str, Mapping[str, int]],
        results: dict[str, dict[str, float]],
        *rest: Any,
        hf_split: str,
        hf_subset: str,
    ) -> dict[str, float]:
        part = f"{hf_split}/{hf_subset}"
        if measure is not None:
            record.scores[part] = {query: round(of[measure], 6) for query, of in scores.items()}
        record.rankings[part] = {
            query: _ranking(documents, qrels.get(query, {})) for query, documents in results.items()
        }
        return original(task, scores, qrels, results, *rest, hf_split=hf_split, hf_subset=hf_subset)

    # A method of this task only.
    task.task_specific_scores = task_specific_scores  # pyright: ignore[reportAttributeAccessIssue]
    return record


def _ranking(scores: Mapping[str, float], grades: Mapping[str, int]) -> Ranking:
    order = sorted(scores, key=lambda name: -scores[name])
    ranks = (rank for rank, name in enumerate(order, start=1) if grades.get(name, 0) > 0)
    return Ranking(next(ranks, None), [(name, scores[name]) for name in order[:_STORED]])


def read_queries(output: Path, name: str, task: Task) -> dict[str, float]:
    """Scores by `split/subset/query` for the task's splits and subsets; empty without a file."""
    path = output / _SCORES / f"{name}.json"
    scores = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return {
        f"{part}/{query}": score
        for split in task.splits
        for part in (f"{split}/{subset}" for subset in task.subsets)
        for query, score in scores.get(part, {}).items()
    }


def read_rankings(output: Path, name: str) -> dict[str, Ranking]:
    """The rankings by query; empty without a file."""
    path = output / _RANKINGS / f"{name}.json"
    rankings = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return {
        query: Ranking(values["rank"], [tuple(each) for each in values["best"]])
        for query, values in rankings.items()
    }
