"""Scores by query, which mteb averages and forgets: what tells whether two models differ by more than chance."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mteb.abstasks.retrieval import AbsTaskRetrieval

from e5jax.workdir import write_text

FOLDER = "queries"
_MEASURES = {  # mteb's name of a mean, pytrec_eval's of its terms
    "ndcg_at_10": "ndcg_cut_10",
    "ndcg_at_1": "ndcg_cut_1",
    "map_at_1000": "map_cut_1000",
}


def listening(task: AbsTaskRetrieval, heard: dict[str, dict[str, float]]) -> None:
    """Has the task put its main score of every query into `heard`, by `split/subset`, where it is one that queries have."""
    measure = _MEASURES.get(task.metadata.main_score)
    if measure is None:
        return
    own = type(task).task_specific_scores  # mteb's place for scores of one task: it alone is given those of each query

    def hear(scores: dict[str, dict[str, float]], *rest: Any, hf_split: str, hf_subset: str) -> dict[str, float]:
        heard[f"{hf_split}/{hf_subset}"] = {query: round(of[measure], 6) for query, of in scores.items()}
        return own(task, scores, *rest, hf_split=hf_split, hf_subset=hf_subset)

    task.task_specific_scores = hear  # pyright: ignore[reportAttributeAccessIssue]  a method, of this task only


def write_queries(output: Path, task: str, heard: Mapping[str, Mapping[str, float]]) -> None:
    """Writes `output/queries/TASK.json`."""
    write_text(output / FOLDER / f"{task}.json", json.dumps(heard) + "\n")


def read_queries(output: Path, task: str) -> dict[str, float]:
    """The scores by `split/subset/query`; nothing where there are none."""
    path = output / FOLDER / f"{task}.json"
    if not path.is_file():
        return {}
    found = json.loads(path.read_text(encoding="utf-8"))
    return {f"{place}/{query}": score for place, scores in found.items() for query, score in scores.items()}
