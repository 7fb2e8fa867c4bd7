"""`report.html` and `results.md`: the content of `results.json` as a page and as text.

The page consists of sections, each present when the results have its data. Everything on it comes
from `Results`, except for sections that a caller adds.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

from e5jax.report import charts, page, tables
from e5jax.report.results import MAIN, Average, Results, Scores
from e5jax.report.tables import Table

RESULTS, TEXT, PAGE = "results.json", "results.md", "report.html"
ABSENT = "–"
_METRICS = {
    "ndcg_at_10": "nDCG@10",
    "recall_at_10": "Recall@10",
    "recall_at_100": "Recall@100",
    "mrr_at_10": "MRR@10",
    MAIN: "Main score",
}
_DIFFERENCES = (
    "This model minus the other, in points, by query: 95 % interval and two-sided p of a paired "
    "bootstrap with 10,000 resamples. p holds for a single comparison: of twenty, one is below "
    "0.05 by chance."
)
_AVERAGES = (
    "Averages of main scores in per cent. If a system lacks some of a category's tasks, the number "
    "of tasks that it has stands in place of the average."
)


_VECTORS = (
    "The first stage compares stored vectors with stored queries; the candidates are then ranked "
    "by float queries."
)
Series = dict[str, tuple[list[float], list[float]]]  # by precision, bytes and values


class Section(NamedTuple):
    """A heading with text, a table and figures (caption, SVG or HTML)."""

    heading: str
    table: Table | None
    text: Sequence[str] = ()
    figures: Sequence[tuple[str, page.Html]] = ()


def html(title: str, lead: str, results: Results, extra: Sequence[page.Html] = ()) -> page.Html:
    """The page, without scripts or network access; equal results give equal bytes.

    `extra`: further sections, placed after the scores.
    """
    scores, rest = (list(map(_html_section, part)) for part in _sections(results))
    return page.document(title, lead, [*scores, *extra, *rest])


def markdown(title: str, lead: str, results: Results) -> str:
    """The tables of the page as Markdown."""
    parts = [f"# {title}", lead]
    for section in (section for part in _sections(results) for section in part):
        parts += [f"## {section.heading}", *section.text]
        parts += [tables.markdown(section.table)] if section.table else []
    return "\n\n".join(parts) + "\n"


def _html_section(section: Section) -> page.Html:
    parts = [page.table(*section.table)] if section.table else []
    parts += map(page.paragraph, section.text)
    parts += [page.figures(section.figures)] if section.figures else []
    return page.section(section.heading, *parts)


def _sections(results: Results) -> tuple[list[Section], list[Section]]:
    """The sections about scores, and those that follow."""
    if results.vectors:
        scores = [_vectors(results)]
    elif len(results.tasks) == 1:
        scores = [_metrics(results)]
    else:
        scores = [_averages(results), *_categories(results)]
        if _present(results.scores) != [MAIN]:
            scores.append(_metrics(results))
    if results.differences:
        scores.append(Section("Differences", _difference_table(results), [_DIFFERENCES]))
    notes = [Section("Notes", None, results.notes)] if results.notes else []
    return scores, [*notes, Section("Settings", _settings_table(results))]


# --- scores ------------------------------------------------------------------------------------


def metric_table(results: Results, systems: Sequence[str] = ()) -> Table:
    """A row for each task and system; the best of a task are stressed. No `systems`: all."""
    metrics = _present(results.scores)
    rows: list[list[str]] = []
    best: set[tuple[int, int]] = set()
    for task, of in results.tasks.items():
        chosen = {
            name: results.scores[name][task]
            for name in systems or results.scores
            if task in results.scores[name]
        }
        for system, values in chosen.items():
            cells = [f"{values[name]:.4f}" if name in values else ABSENT for name in metrics]
            rows.append([task, of.label, system, *cells])
            best |= {
                (len(rows) - 1, 3 + column)
                for column, name in enumerate(metrics)
                if values.get(name) == max(each.get(name, -math.inf) for each in chosen.values())
            }
    header = ["task", "data", "system", *(_METRICS[name] for name in metrics)]
    return Table(header, rows, frozenset(best))


def _metrics(results: Results) -> Section:
    table = metric_table(results)
    if len(results.tasks) > 1:
        return Section("All metrics", table)
    ((name, task),) = results.tasks.items()
    rows, best = [row[2:] for row in table.rows], {(row, column - 2) for row, column in table.best}
    time = "" if task.seconds is None else f", evaluated in {duration(task.seconds)}"
    training_data = f" Training data: {task.training_data}." if task.training_data else ""
    text = f"Task {name} ({task.label}){time}.{training_data}"
    return Section("Results", Table(table.header[2:], rows, frozenset(best)), [text])


def _present(scores: Scores) -> list[str]:
    """The metrics that any system has for any task; nDCG@10 as the main score counts once."""
    runs = [metrics for by_task in scores.values() for metrics in by_task.values()]
    repeated = all(metrics[MAIN] == metrics.get("ndcg_at_10") for metrics in runs)
    return [
        name
        for name in _METRICS
        if any(name in metrics for metrics in runs) and not (repeated and name == MAIN)
    ]


def _averages(results: Results) -> Section:
    averages = results.averages
    rows = [
        [name, str(next(iter(by_system.values())).of), *map(_average, by_system.values())]
        for name, by_system in averages.items()
    ]
    bars = []
    for name in results.categories:
        for number, (system, average) in enumerate(averages[name].items()):
            label, note = "" if number else name, f"{_average(average)} {system}"
            color = charts.SERIES[number % len(charts.SERIES)]
            bars.append(page.Bar(label, max(0.0, average.value or 0.0), note, color=color))
    figure = ("Averages by category in per cent", page.bars(bars))
    table = Table(["category", "tasks", *results.scores], rows)
    return Section("Averages", table, [_AVERAGES], [figure])


def _average(average: Average) -> str:
    if average.value is not None:
        return f"{100 * average.value:.2f}"
    return f"{ABSENT} ({average.tasks} of {average.of})" if average.of else ABSENT


def _categories(results: Results) -> list[Section]:
    """For each category a table of main scores in per cent, by task."""
    return [
        Section(name, _category_table(results, tasks)) for name, tasks in results.categories.items()
    ]


def _category_table(results: Results, tasks: Sequence[str]) -> Table:
    known = any(task.training_data for task in results.tasks.values())
    rows = []
    for name in tasks:
        task = results.tasks[name]
        scores = [
            f"{100 * by_task[name][MAIN]:.2f}" if name in by_task else ABSENT
            for by_task in results.scores.values()
        ]
        time = ABSENT if task.seconds is None else duration(task.seconds)
        rows.append([name, task.label, *scores, time, *([task.training_data] if known else [])])
    header = ["task", "data", *results.scores, "time", *(["training data"] if known else [])]
    return Table(header, rows)


def _difference_table(results: Results) -> Table:
    rows = [
        [
            task,
            system,
            f"{of.queries:,}",
            f"{100 * of.mean:+.2f}",
            f"{100 * of.low:+.2f} … {100 * of.high:+.2f}",
            f"{of.p:.4f}",
        ]
        for task, by_system in results.differences.items()
        for system, of in by_system.items()
    ]
    return Table(["task", "system", "queries", "difference", "95 % interval", "p"], rows)


# --- stored vectors ----------------------------------------------------------------------------


def vector_table(results: Results) -> Table:
    """A row for each number of dimensions and precision."""
    (task,) = results.tasks
    rows = []
    for name, vectors in results.vectors.items():
        metrics = results.scores[name][task]
        rows.append(
            [
                f"{vectors.dimensions:,}",
                vectors.precision,
                f"{vectors.bytes_per_vector:,}",
                f"{metrics['ndcg_at_10']:.4f}",
                f"{metrics['share_of_full']:.1%}",
                f"{metrics['first_stage_ndcg_at_10']:.4f}",
                f"{vectors.queries_per_second:,.0f}",
            ]
        )
    return Table(
        ["dimensions", "precision", "bytes", "nDCG@10", "of full", "first stage", "queries/s"], rows
    )


def _vectors(results: Results) -> Section:
    (task,) = results.tasks
    scores: Series = {}
    speeds: Series = {}
    for name, vectors in results.vectors.items():
        for series, value in (
            (scores, results.scores[name][task]["ndcg_at_10"]),
            (speeds, vectors.queries_per_second),
        ):
            sizes, values = series.setdefault(vectors.precision, ([], []))
            sizes.append(vectors.bytes_per_vector)
            values.append(value)
    figures = [
        ("nDCG@10 by bytes per vector", charts.points(scores, "bytes per vector")),
        ("Queries per second by bytes per vector", charts.points(speeds, "bytes per vector")),
    ]
    return Section("Quality, size and speed", vector_table(results), [_VECTORS], figures)


# --- settings ----------------------------------------------------------------------------------


def _settings_table(results: Results) -> Table:
    """Settings, time and cost."""
    rows = [
        [name, "default" if value is None else value or "none"]
        for name, value in results.settings.items()
    ]
    if results.hours:
        rows.append(["time", duration(3_600 * results.hours)])
    if results.cost is not None:
        rows.append(["cost", f"{results.cost:,.2f} ({results.price:g} per hour)"])
    return Table(["setting", "value"], rows)


def duration(seconds: float) -> str:
    """For example `12.5 s`, `3 min 20 s` or `2 h 05 min`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s"
