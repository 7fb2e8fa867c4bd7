"""Folders of results as mteb writes them."""

import html
import json
import re
from pathlib import Path

from e5jax.eval.tasks import paper_tasks

SETTINGS = {"name": "ours", "preset": "paper", "instruction": None}
PAPER_TASKS = dict(paper_tasks())


def write_folder(
    root: Path, name: str, scores: dict[str, float], queries: dict[str, dict] | None = None
) -> Path:
    """One score for each task and, for some, scores by query."""
    folder = root / name
    (folder / "queries").mkdir(parents=True)
    for task, score in scores.items():
        write_parts(folder, task, {("test", "default"): score})
    for task, by_query in (queries or {}).items():
        (folder / "queries" / f"{task}.json").write_text(json.dumps({"test/default": by_query}))
    return folder


def write_parts(folder: Path, task: str, scores: dict[tuple[str, str], float]) -> None:
    """A result for several splits and subsets."""
    by_split = {split: [] for split, _ in scores}
    for (split, subset), score in scores.items():
        entry = {"main_score": score, "hf_subset": subset, "languages": ["eng-Latn"]}
        by_split[split].append(entry)
    folder.mkdir(parents=True, exist_ok=True)
    result = {"task_name": task, "dataset_revision": "abc", "evaluation_time": 90.0}
    (folder / f"{task}.json").write_text(json.dumps({**result, "scores": by_split}))


def rows(text: str) -> list[list[str]]:
    """The cells of every table row of a page."""
    return [
        [html.unescape(cell) for cell in re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row)]
        for row in re.findall(r"<tr>(.*?)</tr>", text, re.DOTALL)
    ]
