"""Scores and best documents by query, which mteb averages and forgets.

The scores tell whether two models differ by more than chance; the documents are shown as examples.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from mteb.abstasks.retrieval import AbsTaskRetrieval

from e5jax.workdir.directory import write_text

FOLDER, RANKINGS = "queries", "rankings"
BEST = 3  # documents kept of a ranking
_MEASURES = {  # mteb's name of a mean, pytrec_eval's of its terms
    "ndcg_at_10": "ndcg_cut_10",
    "ndcg_at_1": "ndcg_cut_1",
    "map_at_1000": "map_cut_1000",
}


class Ranking(NamedTuple):
    """The best documents of a query with their scores, and the rank of its best relevant document (1 is first).

    `rank` is None where no relevant document is among those that mteb ranks, the best thousand.
    """

    rank: int | None
    best: list[tuple[str, float]]


class ByQuery(NamedTuple):
    """What one evaluation of a task gives for each query, by `split/subset`."""

    scores: dict[str, dict[str, float]]  # the main score, where it is one that queries have
    rankings: dict[str, dict[str, Ranking]]


def record_queries(task: AbsTaskRetrieval) -> ByQuery:
    """Has the task's next evaluation fill the result."""
    record = ByQuery({}, {})
    measure = _MEASURES.get(task.metadata.main_score)
    own = (
        type(task).task_specific_scores
    )  # mteb's place for scores of one task: it alone is given those of each query

    def task_specific_scores(
        scores: dict[str, dict[str, float]],
        qrels: Mapping[str, Mapping[str, int]],
        results: dict[str, dict[str, float]],
        *rest: Any,
        hf_split: str,
        hf_subset: str,
    ) -> dict[str, float]:
        place = f"{hf_split}/{hf_subset}"
        if measure is not None:
            record.scores[place] = {query: round(of[measure], 6) for query, of in scores.items()}
        record.rankings[place] = {
            query: _ranking(found, qrels.get(query, {})) for query, found in results.items()
        }
        return own(task, scores, qrels, results, *rest, hf_split=hf_split, hf_subset=hf_subset)

    task.task_specific_scores = task_specific_scores  # pyright: ignore[reportAttributeAccessIssue]  a method, of this task only
    return record


def _ranking(scores: Mapping[str, float], grades: Mapping[str, int]) -> Ranking:
    order = sorted(scores, key=lambda name: -scores[name])
    rank = next(
        (number for number, name in enumerate(order, start=1) if grades.get(name, 0) > 0), None
    )
    return Ranking(rank, [(name, scores[name]) for name in order[:BEST]])


def write_queries(output: Path, task: str, scores: Mapping[str, Mapping[str, float]]) -> None:
    """Writes `output/queries/TASK.json`."""
    write_text(output / FOLDER / f"{task}.json", json.dumps(scores) + "\n")


def read_queries(output: Path, task: str) -> dict[str, float]:
    """The scores by `split/subset/query`; empty where there is no file."""
    path = output / FOLDER / f"{task}.json"
    if not path.is_file():
        return {}
    scores = json.loads(path.read_text(encoding="utf-8"))
    return {
        f"{place}/{query}": score
        for place, by_query in scores.items()
        for query, score in by_query.items()
    }


def write_rankings(output: Path, task: str, rankings: Mapping[str, Ranking]) -> None:
    """Writes `output/rankings/TASK.json`."""
    write_text(
        output / RANKINGS / f"{task}.json",
        json.dumps({query: one._asdict() for query, one in rankings.items()}) + "\n",
    )


def read_rankings(output: Path, task: str) -> dict[str, Ranking]:
    """The rankings by query; empty where there is no file."""
    path = output / RANKINGS / f"{task}.json"
    if not path.is_file():
        return {}
    rankings = json.loads(path.read_text(encoding="utf-8"))
    return {
        query: Ranking(one["rank"], [(name, score) for name, score in one["best"]])
        for query, one in rankings.items()
    }
