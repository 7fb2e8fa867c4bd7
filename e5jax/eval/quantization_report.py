"""The page of `e5jax compact`: quality against bytes, and speed. All its numbers are those of `results.json`."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from e5jax.report import charts, page

HEADER = (
    "dimensions",
    "precision",
    "bytes",
    "nDCG@10",
    "of the whole",
    "first stage alone",
    "queries / s",
)


class Report(NamedTuple):
    """The same as a page and as text."""

    page: page.Html
    table: str


def report(results: Mapping[str, Any]) -> Report:
    """No script, no network, the same bytes for the same results."""
    rows = [_row(cell) for cell in results["cells"]]
    lead = (
        f"{results['queries']:,} queries, {results['documents']:,} documents of {results['task']}; float queries put "
        f"{results['oversample']} candidates a result in order. Searches are timed on {results['timed_rows']:,} vectors, "
        f"on {results['device']}."
    )
    cells = results["cells"]
    drawn = [
        (
            "nDCG@10 against bytes of a vector",
            charts.points(_series(cells, "ndcg_at_10"), "bytes a vector"),
        ),
        (
            "Queries a second against bytes of a vector",
            charts.points(_series(cells, "queries_per_second"), "bytes a vector"),
        ),
    ]
    notes = (
        [page.section("Notes", *map(page.paragraph, results.get("notes", ())))]
        if results.get("notes")
        else []
    )
    sections = [
        page.section("Quality and size", page.figures(drawn)),
        page.section("Numbers", page.table(HEADER, rows)),
        *notes,
    ]
    widths = [max(map(len, column)) for column in zip(HEADER, *rows, strict=True)]
    lines = [
        "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True))
        for row in (HEADER, *rows)
    ]
    return Report(
        page.document(f"Compact vectors of {results['model']}", lead, sections), "\n".join(lines)
    )


def _series(
    cells: Sequence[Mapping[str, Any]], name: str
) -> dict[str, tuple[list[float], list[float]]]:
    """By precision, bytes and values."""
    found: dict[str, tuple[list[float], list[float]]] = {}
    for cell in cells:
        across, up = found.setdefault(cell["precision"], ([], []))
        across.append(cell["bytes_per_vector"])
        up.append(cell[name])
    return found


def _row(cell: Mapping[str, Any]) -> list[str]:
    return [
        f"{cell['dimensions']:,}",
        cell["precision"],
        f"{cell['bytes_per_vector']:,}",
        f"{cell['ndcg_at_10']:.4f}",
        f"{cell['share_of_whole']:.1%}",
        f"{cell['first_stage_ndcg_at_10']:.4f}",
        f"{cell['queries_per_second']:,.0f}",
    ]
