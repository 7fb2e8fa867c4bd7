"""`report.html` of a run: what was measured, how training went, what the model finds. Plain values in, one file out."""

import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from e5jax.report import charts, page
from e5jax.train.metrics import read_rows
from e5jax.workdir.directory import write_text

_SCORES = {
    "ndcg_at_10": "nDCG@10",
    "recall_at_10": "Recall@10",
    "recall_at_100": "Recall@100",
    "mrr_at_10": "MRR@10",
    "main_score": "Main score",
}
_ABSENT = "–"


class Run(NamedTuple):
    """One training run, by its `metrics.jsonl` as `read_metrics` gives it."""

    name: str
    metrics: Sequence[Mapping[str, float]]
    trained_parameters: int | None = None


class Neighbour(NamedTuple):
    """A document that a search found."""

    name: str
    text: str
    score: float
    right: bool


class Search(NamedTuple):
    """A query, what stands first in its ranking, and the rank of the best right answer (1 is first)."""

    query: str
    neighbours: Sequence[Neighbour]
    rank: int | None  # None: not among the best thousand


class Report(NamedTuple):
    """Everything on the page. `results` are the scores of `evaluate` by system, in the order to show."""

    title: str
    lead: str
    results: Mapping[str, Mapping[str, float]]
    runs: Sequence[Run]
    query_lengths: Sequence[int]  # tokens
    passage_lengths: Sequence[int]  # tokens
    searches: Sequence[Search]
    next_command: str
    notes: Sequence[str] = ()  # on the results


def write_report(path: Path, report: Report) -> None:
    """Writes the page: no script, no network, the same bytes for the same report."""
    searches = [_searches(report.searches)] if report.searches else []
    sections = [_results(report), _training(report.runs), _data(report), *searches]
    write_text(path, page.document(report.title, report.lead, sections))


def read_metrics(path: Path) -> list[dict[str, float]]:
    """The rows of a `metrics.jsonl` in the order of their steps; of a step that a resumed run repeated, the last."""
    by_step = {row["step"]: row for row in read_rows(path)}
    return [by_step[step] for step in sorted(by_step)]


def _results(report: Report) -> page.Html:
    names = [name for name in _SCORES if any(name in scores for scores in report.results.values())]
    rows = [
        [system, *(f"{scores[name]:.4f}" if name in scores else _ABSENT for name in names)]
        for system, scores in report.results.items()
    ]
    best = frozenset(
        (row, column)
        for column, name in enumerate(names, start=1)
        for row, scores in enumerate(report.results.values())
        if scores.get(name, -math.inf)
        == max(other.get(name, -math.inf) for other in report.results.values())
    )
    table = page.table(["system", *(_SCORES[name] for name in names)], rows, best)
    notes = map(page.paragraph, report.notes)
    return page.section(
        "Results", table, *notes, page.paragraph("Next:"), page.code(report.next_command)
    )


def _training(runs: Sequence[Run]) -> page.Html:
    figures = [_figures(run) for run in runs]
    rows = [
        [name, *(column[name] for column in figures)] for name in (figures[0] if figures else ())
    ]
    return page.section(
        "Training",
        page.table(["", *(run.name for run in runs)], rows),
        page.figures(
            [
                ("Loss (InfoNCE)", charts.curves(_series(runs, "train/loss"), from_zero=True)),
                (
                    "Accuracy within the batch",
                    charts.curves(_series(runs, "train/accuracy"), from_zero=True),
                ),
            ]
        ),
    )


def _figures(run: Run) -> dict[str, str]:
    """The key figures of a run, as text."""
    return {
        "Steps": f"{len(run.metrics):,}",
        "Time in steps": _duration(sum(_values(run, "train/step_seconds"))),
        "Pairs a second (median)": _median(run, "train/pairs_per_second", "{:,.1f}"),
        "Tokens a second (median)": _median(run, "train/tokens_per_second", "{:,.0f}"),
        "Real tokens, share (median)": _median(run, "train/real_token_share", "{:.1%}"),
        "Trained parameters": _ABSENT
        if run.trained_parameters is None
        else f"{run.trained_parameters:,}",
        "Last loss": _last(run, "train/loss", "{:.4f}"),
        "Last accuracy": _last(run, "train/accuracy", "{:.1%}"),
    }


def _values(run: Run, key: str) -> list[float]:
    return [row[key] for row in run.metrics if _drawable(row, key)]


def _drawable(row: Mapping[str, float], key: str) -> bool:
    return row.get(key) is not None and math.isfinite(row[key])


def _median(run: Run, key: str, form: str) -> str:
    values = _values(run, key)
    return form.format(statistics.median(values)) if values else _ABSENT


def _last(run: Run, key: str, form: str) -> str:
    values = _values(run, key)
    return form.format(values[-1]) if values else _ABSENT


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s"


def _series(runs: Sequence[Run], key: str) -> dict[str, tuple[list[float], list[float]]]:
    """Steps and values of each run, without what cannot be drawn."""
    series = {
        run.name: ([row["step"] for row in run.metrics if _drawable(row, key)], _values(run, key))
        for run in runs
    }
    return {name: (steps, values) for name, (steps, values) in series.items() if values}


def _data(report: Report) -> page.Html:
    if not report.query_lengths:
        return page.section(
            "Training texts",
            page.paragraph("Their lengths were not recorded when the run was trained."),
        )
    count = (
        f"{len(report.query_lengths):,} training pairs, by their length before they are cut at the token limit, instructions "
        "and other prompts included."
    )
    return page.section(
        "Training texts",
        page.paragraph(count),
        page.figures(
            [
                ("Queries by length", charts.histogram(report.query_lengths)),
                ("Passages by length", charts.histogram(report.passage_lengths)),
            ]
        ),
    )


def _searches(searches: Sequence[Search]) -> page.Html:
    order = page.paragraph(
        "From the easiest query to the hardest, evenly spaced by the rank of the right function."
    )
    return page.section("What it finds", order, *(_search(search) for search in searches))


def _search(search: Search) -> page.Html:
    answers = (
        page.answer(
            number, found.name, f"{found.score:.3f}", found.text, "✓ right" if found.right else ""
        )
        for number, found in enumerate(search.neighbours, start=1)
    )
    rank = "not among the first thousand" if search.rank is None else f"at rank {search.rank:,}"
    return page.quote(search.query, f"The right function is {rank}.", *answers)
