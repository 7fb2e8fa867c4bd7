"""A `Board` as files: `results.json` for programs, `results.md` for text, `report.html` for eyes. All show the same cells."""

import json
from collections.abc import Sequence
from pathlib import Path

from e5jax.eval.averages import Mean
from e5jax.eval.comparison import ALL, Board
from e5jax.eval.figures import bars, radar
from e5jax.report import page
from e5jax.workdir.directory import write_text

ABSENT = "–"
RESULTS, TEXT, PAGE = "results.json", "results.md", "report.html"
Rows = list[list[str]]


def write_board(output: Path, board: Board) -> None:
    """Writes the three files."""
    write_text(output / RESULTS, json.dumps(board.as_json(), indent=2, ensure_ascii=False) + "\n")
    write_text(output / TEXT, markdown(board))
    write_text(output / PAGE, html(board))


def markdown(board: Board) -> str:
    """Tables of the page, as text."""
    parts = [f"# {_title(board)}", _lead(board), "## Averages", _pipes(*averages(board))]
    for name in board.means:
        if name != ALL:
            parts += [f"## {name}", _pipes(*tasks(board, name))]
    if board.differences:
        parts += ["## Differences", _DIFFERENCES, _pipes(*differences(board))]
    parts += ["## Notes", "\n".join(f"- {note}" for note in board.notes)] if board.notes else []
    return "\n\n".join([*parts, "## How", _pipes(*how(board))]) + "\n"


def html(board: Board) -> page.Html:
    """The page: no script, no network, the same bytes for the same board."""
    names = [name for name in board.means if name != ALL]
    series = {
        system.name: [board.means[name][system.name].value for name in names]
        for system in board.systems
    }
    drawn = [("Means by category, per cent", bars(names, series))]
    if len(names) > 2:
        drawn.append(("The same around a circle, from 0 to 100", radar(names, series)))
    header, rows = averages(board)
    sections = [
        page.section(
            "Averages", page.table(header, rows), page.paragraph(_AVERAGES), page.figures(drawn)
        )
    ]
    sections += [page.section(name, page.table(*tasks(board, name))) for name in names]
    if board.differences:
        sections.append(
            page.section(
                "Differences", page.paragraph(_DIFFERENCES), page.table(*differences(board))
            )
        )
    if board.notes:
        sections.append(page.section("Notes", *map(page.paragraph, board.notes)))
    sections.append(page.section("How", page.table(*how(board))))
    return page.document(_title(board), _lead(board), sections)


_AVERAGES = (
    "Means of main scores in per cent, with the number of tasks behind them. Where a system lacks some of a category's tasks "
    "there is no mean, only how many it has; the last line is over the tasks that all systems have."
)
_DIFFERENCES = (
    "Ours minus theirs in points, by query: 95 % interval and two-sided p of a paired bootstrap with 10,000 resamples. "
    "p is that of one comparison: of twenty, one is below 0.05 by chance."
)


def averages(board: Board) -> tuple[list[str], Rows]:
    """A line for each category, for all tasks, and for those that all systems have."""
    names = [system.name for system in board.systems]
    rows = [
        [name, str(by[names[0]].of), *(_mean(by[system]) for system in names)]
        for name, by in board.means.items()
    ]
    if len(names) > 1:
        rows.append(
            [
                "shared by all",
                str(board.together[names[0]].of),
                *(_mean(board.together[name]) for name in names),
            ]
        )
    return ["category", "tasks", *names], rows


def tasks(board: Board, category: str) -> tuple[list[str], Rows]:
    """A line for each task of a category."""
    names = [system.name for system in board.systems]
    rows = []
    for task, scope in ((task, of) for task, of in board.scope.items() if of.category == category):
        found = [board.score(system, task) for system in board.systems]
        seconds = found[0].seconds if found[0] else None
        scores = [f"{100 * score.main:.2f}" if score else ABSENT for score in found]
        rows.append(
            [
                task,
                scope.label,
                *scores,
                ABSENT if seconds is None else duration(seconds),
                board.flags[task],
            ]
        )
    return ["task", "of", *names, "time", "training data"], rows


def differences(board: Board) -> tuple[list[str], Rows]:
    """A line for each task and system beside."""
    rows = [
        [
            task,
            name,
            f"{found.queries:,}",
            f"{100 * found.mean:+.2f}",
            f"{100 * found.low:+.2f} … {100 * found.high:+.2f}",
            f"{found.p:.4f}",
        ]
        for task, by in board.differences.items()
        for name, found in by.items()
    ]
    return ["task", "beside", "queries", "difference", "95 % interval", "p"], rows


def how(board: Board) -> tuple[list[str], Rows]:
    """Settings, time and cost."""
    rows = [
        [name, "its own" if value is None else value or "none"]
        for name, value in board.settings.items()
    ]
    rows.append(["time", duration(3_600 * board.hours)])
    if board.price is not None:
        rows.append(["cost", f"{board.hours * board.price:,.2f} ({board.price:g} an hour)"])
    return ["", "value"], rows


def duration(seconds: float) -> str:
    """As people say it."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s"


def _mean(found: Mean) -> str:
    if found.value is not None:
        return f"{100 * found.value:.2f}"
    return f"{ABSENT} ({found.tasks} of {found.of})" if found.of else ABSENT


def _title(board: Board) -> str:
    return f"Evaluation of {board.systems[0].name}"


def _lead(board: Board) -> str:
    held = sum(task in board.systems[0].tasks for task in board.scope)
    return f"{held} of {len(board.scope)} tasks, preset {board.settings.get('preset')}."


def _pipes(header: Sequence[str], rows: Rows) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(
        "| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines
    )
