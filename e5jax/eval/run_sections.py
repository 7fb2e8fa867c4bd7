"""Sections of a run's report: how training went, its texts, and examples of what the model finds.

The files of a run directory flow in, sections of a page flow out.
"""

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from e5jax.config import Config
from e5jax.data.beir import read_retrieval
from e5jax.eval.queries import read_rankings
from e5jax.eval.report import ABSENT, duration
from e5jax.report import charts, page
from e5jax.train.metrics import read_rows
from e5jax.workdir.directory import Workdir

HELDOUT = "heldout"
_EXAMPLES = 6
_LENGTHS = "training pairs, by length before truncation, instructions and other prompts included."


class TrainingRun(NamedTuple):
    """A training run and the rows of its `metrics.jsonl`."""

    name: str
    metrics: Sequence[Mapping[str, float]]
    trained_parameters: int | None = None

    def values(self, key: str) -> list[float]:
        """The finite values of a metric."""
        return [row[key] for row in self.metrics if _is_finite(row, key)]

    def median(self, key: str, form: str) -> str:
        """The median of a metric as text."""
        values = self.values(key)
        return form.format(statistics.median(values)) if values else ABSENT

    def last(self, key: str, form: str) -> str:
        """The last value of a metric as text."""
        values = self.values(key)
        return form.format(values[-1]) if values else ABSENT


class Neighbour(NamedTuple):
    """A document that a search returned."""

    name: str
    text: str
    score: float
    relevant: bool


class Search(NamedTuple):
    """A query, its best documents, and the rank of the best relevant one, from 1."""

    query: str
    neighbours: Sequence[Neighbour]
    rank: int | None  # None: not among the best thousand


def run_sections(
    config: Config, workdir: Workdir, rankings: Path | None, command: str
) -> list[page.Html]:
    """All sections; `rankings`: mteb's results on the held-out pairs, if there are any."""
    lengths = (
        json.loads(workdir.lengths.read_text(encoding="utf-8")) if workdir.lengths.is_file() else {}
    )
    sections = [
        training_section(read_runs(config, workdir)),
        length_section(lengths.get("queries", ()), lengths.get("passages", ())),
    ]
    if rankings and (searches := read_searches(workdir.data / HELDOUT, rankings)):
        sections.append(search_section(searches))
    return [*sections, page.section("Next", page.code(command))]


def read_runs(config: Config, workdir: Workdir) -> list[TrainingRun]:
    """The training runs, in their order."""
    stages = [("training", workdir)]
    if config.pretrain:
        stages = [("stage 1", workdir.pretrain), ("stage 2", workdir)]
    return [
        TrainingRun(
            name,
            read_metrics(stage.metrics),
            json.loads(stage.trained.read_text(encoding="utf-8"))["trained_parameters"],
        )
        for name, stage in stages
    ]


def read_metrics(path: Path) -> list[dict[str, float]]:
    """The rows of a `metrics.jsonl` by step; a step that a resumed run repeated counts once."""
    by_step = {row["step"]: row for row in read_rows(path)}
    return [by_step[step] for step in sorted(by_step)]


def training_section(runs: Sequence[TrainingRun]) -> page.Html:
    """Key figures and curves of the training runs."""
    figures = [_key_figures(run) for run in runs]
    rows = [[name, *(column[name] for column in figures)] for name in figures[0]]
    curves = [
        (caption, charts.curves(_series(runs, key), from_zero=True))
        for caption, key in (
            ("Loss (InfoNCE)", "train/loss"),
            ("Accuracy within the batch", "train/accuracy"),
        )
    ]
    table = page.table(["", *(run.name for run in runs)], rows)
    return page.section("Training", table, page.figures(curves))


def _key_figures(run: TrainingRun) -> dict[str, str]:
    return {
        "Steps": f"{len(run.metrics):,}",
        "Time in steps": duration(sum(run.values("train/step_seconds"))),
        "Pairs per second (median)": run.median("train/pairs_per_second", "{:,.1f}"),
        "Tokens per second (median)": run.median("train/tokens_per_second", "{:,.0f}"),
        "Share of real tokens (median)": run.median("train/real_token_share", "{:.1%}"),
        "Trained parameters": ABSENT
        if run.trained_parameters is None
        else f"{run.trained_parameters:,}",
        "Last loss": run.last("train/loss", "{:.4f}"),
        "Last accuracy": run.last("train/accuracy", "{:.1%}"),
    }


def _is_finite(row: Mapping[str, float], key: str) -> bool:
    return row.get(key) is not None and math.isfinite(row[key])


def _series(runs: Sequence[TrainingRun], key: str) -> dict[str, tuple[list[float], list[float]]]:
    """Steps and finite values of each run."""
    series = {
        run.name: ([row["step"] for row in run.metrics if _is_finite(row, key)], run.values(key))
        for run in runs
    }
    return {name: (steps, values) for name, (steps, values) in series.items() if values}


def length_section(queries: Sequence[int], passages: Sequence[int]) -> page.Html:
    """Lengths of the training texts in tokens."""
    if not queries:
        text = "Their lengths were not recorded when the run was trained."
        return page.section("Training texts", page.paragraph(text))
    figures = [
        ("Queries by length", charts.histogram(queries)),
        ("Passages by length", charts.histogram(passages)),
    ]
    text = page.paragraph(f"{len(queries):,} {_LENGTHS}")
    return page.section("Training texts", text, page.figures(figures))


def read_searches(heldout: Path, rankings: Path) -> list[Search]:
    """Queries of the held-out pairs from the easiest to the hardest, with their best documents.

    They are evenly spaced by rank, and come from the evaluation: nothing is embedded again.
    """
    data, by_query = read_retrieval(heldout), read_rankings(rankings, HELDOUT)
    order = sorted(by_query, key=lambda query: by_query[query].rank or len(data.corpus) + 1)
    places = np.linspace(0, len(order) - 1, _EXAMPLES + 1, dtype=int)[:-1] if order else []
    searches = []
    for query in (order[place] for place in places):
        grades = data.relevant.get(query, {})
        best = [
            Neighbour(name, data.corpus[name].text, score, grades.get(name, 0) > 0)
            for name, score in by_query[query].best
        ]
        searches.append(Search(data.queries[query], best, by_query[query].rank))
    return searches


def search_section(searches: Sequence[Search]) -> page.Html:
    """Examples of queries with the documents found."""
    text = (
        "Queries from the easiest to the hardest, evenly spaced by the rank of the right function."
    )
    return page.section("What it finds", page.paragraph(text), *map(_search, searches))


def _search(search: Search) -> page.Html:
    answers = (
        page.answer(
            number,
            neighbour.name,
            f"{neighbour.score:.3f}",
            neighbour.text,
            "✓ right" if neighbour.relevant else "",
        )
        for number, neighbour in enumerate(search.neighbours, start=1)
    )
    rank = "not among the first thousand" if search.rank is None else f"at rank {search.rank:,}"
    return page.quote(search.query, f"The right function is {rank}.", *answers)
