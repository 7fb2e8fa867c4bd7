"""Parts of a self-contained HTML page, without scripts or network access.

Plain texts flow in and are escaped; markup flows out.
"""

from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import NamedTuple, NewType

Html = NewType("Html", str)  # markup whose texts are already escaped
_STYLE = Path(__file__).with_name("page.css")


def document(title: str, lead: str, sections: Iterable[Html]) -> Html:
    """The whole page."""
    parts = [
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{escape(title)}</title>",
        f"<style>\n{_STYLE.read_text(encoding='utf-8')}</style>\n</head>\n<body>",
        f'<header>\n<h1>{escape(title)}</h1>\n<p class="lead">{escape(lead)}</p>\n</header>',
        *sections,
        "</body>\n</html>\n",
    ]
    return Html("\n".join(parts))


def section(heading: str, *parts: Html) -> Html:
    """A heading and what follows it."""
    return Html("\n".join([f"<section>\n<h2>{escape(heading)}</h2>", *parts, "</section>"]))


def paragraph(text: str) -> Html:
    """A paragraph of text."""
    return Html(f"<p>{escape(text)}</p>")


def table(
    header: Sequence[str],
    rows: Iterable[Sequence[str]],
    best: frozenset[tuple[int, int]] = frozenset(),
) -> Html:
    """A table whose first column names the rows; `best` are the (row, column) cells to stress."""
    head = "".join(f'<th scope="col">{escape(text)}</th>' for text in header)
    lines = []
    for number, (name, *cells) in enumerate(rows):
        lines.append(f'<tr><th scope="row">{escape(name)}</th>')
        for column, text in enumerate(cells, start=1):
            mark = " class=best" if (number, column) in best else ""
            lines.append(f"<td{mark}>{escape(text)}</td>")
        lines.append("</tr>\n")
    if not lines:
        return paragraph("None.")
    return Html(
        f'<div class="scroll"><table>\n<thead><tr>{head}</tr></thead>\n'
        f"<tbody>\n{''.join(lines)}</tbody>\n</table></div>"
    )


class Bar(NamedTuple):
    """A horizontal bar. `start`, `length` and the mark's place are shares of the width."""

    name: str
    length: float
    note: str  # after the bar
    start: float = 0.0
    mark: float | None = None
    color: str = "var(--series-1)"


def bars(rows: Iterable[Bar]) -> Html:
    """Horizontal bars, one below the other."""
    return Html('<div class="bars">\n' + "\n".join(map(_bar, rows)) + "\n</div>")


def _bar(bar: Bar) -> str:
    mark = "" if bar.mark is None else f'<b style="left: {100 * bar.mark:.2f}%"></b>'
    place = f"left: {100 * bar.start:.2f}%; width: {100 * bar.length:.2f}%"
    track = f'<i style="{place}; background: {bar.color}"></i>{mark}'
    return (
        f"<span>{escape(bar.name)}</span>"
        f'<div class="track">{track}</div><span>{escape(bar.note)}</span>'
    )


def fields(rows: Iterable[tuple[str, str]]) -> Html:
    """Texts in any language, each below its name."""
    items = (f'<dt>{escape(name)}</dt><dd dir="auto">{escape(text)}</dd>' for name, text in rows)
    return Html(f"<dl>{''.join(items)}</dl>")


def folded(summary: str, *parts: Html) -> Html:
    """Details that are hidden until the reader unfolds them."""
    return Html(
        "\n".join([f"<details>\n<summary>{escape(summary)}</summary>", *parts, "</details>"])
    )


def figures(captioned: Iterable[tuple[str, Html]]) -> Html:
    """A grid of figures, each a caption and markup."""
    items = (
        f'<figure role="img" aria-label="{escape(caption)}">'
        f"<figcaption>{escape(caption)}</figcaption>{figure}</figure>"
        for caption, figure in captioned
    )
    return Html('<div class="figures">\n' + "\n".join(items) + "\n</div>")


def code(text: str) -> Html:
    """A block of code or a command."""
    return Html(f"<pre><code>{escape(text)}</code></pre>")


def quote(text: str, note: str, *answers: Html) -> Html:
    """A question with its answers below."""
    head = f'<blockquote>{escape(text)}</blockquote>\n<p class="note">{escape(note)}</p>'
    return Html("\n".join(["<article>", head, *answers, "</article>"]))


def answer(number: int, name: str, note: str, text: str, mark: str = "") -> Html:
    """An answer with a note and perhaps a mark; the first is unfolded."""
    marked = f'<span class="right">{escape(mark)}</span>' if mark else ""
    return Html(
        f"<details{' open' * (number == 1)}>\n"
        f'<summary><span class="note">{number}</span><code>{escape(name)}</code>{marked}'
        f'<span class="note">{escape(note)}</span></summary>\n{code(text)}\n</details>'
    )
