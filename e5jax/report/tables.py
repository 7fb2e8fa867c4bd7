"""Tables of text cells as Markdown or as aligned columns."""

from collections.abc import Sequence
from typing import NamedTuple


class Table(NamedTuple):
    """A header and rows of the same length. `best` are the (row, column) cells to stress."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    best: frozenset[tuple[int, int]] = frozenset()


def markdown(table: Table) -> str:
    """A Markdown table."""
    lines = [table.header, ["---"] * len(table.header), *table.rows]
    cells = ([cell.replace("|", "\\|") for cell in line] for line in lines)
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)


def aligned(table: Table, left: int = 1) -> str:
    """Columns for a terminal: the first `left` are flush left, the others flush right."""
    widths = [max(map(len, column)) for column in zip(table.header, *table.rows, strict=True)]
    lines = []
    for line in (table.header, *table.rows):
        cells = [
            cell.ljust(width) if number < left else cell.rjust(width)
            for number, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)
