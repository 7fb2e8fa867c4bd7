"""The parts of a self-contained HTML page: escaped text in, markup out. No script, no network."""

from collections.abc import Iterable, Sequence
from html import escape
from typing import NamedTuple, NewType

Html = NewType("Html", str)  # markup whose texts are already escaped

_STYLE = """
:root {
  color-scheme: light dark;
  --paper: #fdfdfb; --ink: #1d1f21; --muted: #63676b; --rule: #e3e3de; --code: #f4f4f0;
  --series-1: #2b5f93; --series-2: #b4541f; --series-3: #5f7a1f; --series-4: #7d4a94; --right: #1d7a46;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #151719; --ink: #e4e5e3; --muted: #9b9fa3; --rule: #303438; --code: #1d2023;
    --series-1: #79aede; --series-2: #e59a6c; --series-3: #aec46a; --series-4: #c79be0; --right: #6cc796;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0 auto; padding: 2.5rem 1.25rem 4rem; max-width: 58rem; background: var(--paper); color: var(--ink);
  font: 1rem/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif;
}
h1 { font-size: 1.7rem; line-height: 1.2; letter-spacing: -0.01em; margin: 0 0 0.4rem; }
h2 { font-size: 1.1rem; margin: 3rem 0 0.75rem; padding-top: 0.9rem; border-top: 1px solid var(--rule); }
p { margin: 0 0 1rem; max-width: 44rem; }
.lead, figcaption, .note { color: var(--muted); }
.scroll { overflow-x: auto; margin-bottom: 1.25rem; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: 0.45rem 0 0.45rem 1.25rem; text-align: right; border-bottom: 1px solid var(--rule); white-space: nowrap; }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
thead th { color: var(--muted); font-weight: 500; font-size: 0.85rem; white-space: normal; vertical-align: bottom; }
tbody th { font-weight: 500; white-space: normal; overflow-wrap: anywhere; min-width: 8rem; }
td.best { font-weight: 700; }
.figures {
  display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 20rem), 1fr)); gap: 1.5rem 2rem; margin-top: 1.5rem;
}
figure { margin: 0; min-width: 0; }
figcaption { font-size: 0.9rem; margin-bottom: 0.35rem; }
svg { display: block; width: 100%; height: auto; }
svg text { font-family: inherit; }
pre {
  margin: 0.5rem 0 0; padding: 0.8rem 1rem; overflow: auto; max-height: 15rem; background: var(--code); border-radius: 6px;
  white-space: pre-wrap; overflow-wrap: anywhere;
  font: 0.82rem/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace;
}
article { margin: 1.75rem 0 2.25rem; }
blockquote {
  margin: 0 0 0.75rem; padding-left: 0.9rem; border-left: 3px solid var(--series-1); white-space: pre-wrap; overflow-wrap: anywhere;
}
details { padding: 0.45rem 0; border-bottom: 1px solid var(--rule); }
summary { cursor: pointer; display: flex; gap: 0.75rem; align-items: baseline; font-variant-numeric: tabular-nums; }
summary::before { content: "▸"; color: var(--muted); width: 0.7rem; }
details[open] > summary::before { content: "▾"; }
summary::-webkit-details-marker { display: none; }
summary code { overflow: hidden; text-overflow: ellipsis; white-space: nowrap; font-size: 0.85rem; min-width: 0; flex: 1; }
summary .note { font-size: 0.85rem; }
.right { color: var(--right); font-weight: 600; font-size: 0.85rem; white-space: nowrap; }
.bars { display: grid; grid-template-columns: minmax(5rem, max-content) 1fr max-content; gap: 0.3rem 0.9rem; align-items: center; }
.bars, dl { margin: 0 0 1.25rem; font-variant-numeric: tabular-nums; }
.bars > .track { height: 0.8rem; position: relative; }
.bars > .track > i { position: absolute; inset: 0 auto 0 0; border-radius: 2px; }
.bars > .track > b { position: absolute; inset: -0.2rem auto; width: 3px; background: var(--ink); border-radius: 1px; }
.bars > span { font-size: 0.9rem; overflow-wrap: anywhere; }
.bars > .track + span { text-align: right; color: var(--muted); white-space: nowrap; }
dt { color: var(--muted); font-size: 0.85rem; margin-top: 0.6rem; }
dd { margin: 0; white-space: pre-wrap; overflow-wrap: anywhere; max-height: 15rem; overflow-y: auto; }
@media (max-width: 32rem) {
  body { padding-top: 1.5rem; }
  th, td { padding-left: 0.6rem; font-size: 0.82rem; }
  thead th { font-size: 0.75rem; }
}
@media print { pre { max-height: none; } }
"""


def document(title: str, lead: str, sections: Iterable[Html]) -> Html:
    """The whole page."""
    return Html(
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        f'<header>\n<h1>{escape(title)}</h1>\n<p class="lead">{escape(lead)}</p>\n</header>\n'
        + "\n".join(sections)
        + "\n</body>\n</html>\n"
    )


def section(heading: str, *parts: Html) -> Html:
    """A heading and what follows it."""
    return Html(f"<section>\n<h2>{escape(heading)}</h2>\n" + "\n".join(parts) + "\n</section>")


def paragraph(text: str) -> Html:
    """Prose."""
    return Html(f"<p>{escape(text)}</p>")


def table(
    header: Sequence[str],
    rows: Iterable[Sequence[str]],
    best: frozenset[tuple[int, int]] = frozenset(),
) -> Html:
    """A table whose first column names the row; `best` are the (row, column) cells to stress, counted from 0."""
    if not (rows := list(rows)):
        return paragraph("None.")
    head = "".join(f'<th scope="col">{escape(text)}</th>' for text in header)
    body = "".join(
        f"<tr>{_cells(row, {j for i, j in best if i == number})}</tr>\n"
        for number, row in enumerate(rows)
    )
    return Html(
        f'<div class="scroll"><table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}</tbody>\n</table></div>'
    )


def _cells(row: Sequence[str], best: set[int]) -> str:
    cells = [f"<td{' class=best' * (j in best)}>{escape(text)}</td>" for j, text in enumerate(row)]
    return f'<th scope="row">{escape(row[0])}</th>' + "".join(cells[1:])


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
    """Texts of any language, each below its name."""
    return Html(
        "<dl>"
        + "".join(
            f'<dt>{escape(name)}</dt><dd dir="auto">{escape(text)}</dd>' for name, text in rows
        )
        + "</dl>"
    )


def folded(summary: str, *parts: Html) -> Html:
    """What only some want to see."""
    return Html(
        f"<details>\n<summary>{escape(summary)}</summary>\n" + "\n".join(parts) + "\n</details>"
    )


def figures(captioned: Iterable[tuple[str, Html]]) -> Html:
    """A grid of (caption, SVG)."""
    made = (
        f'<figure role="img" aria-label="{escape(caption)}"><figcaption>{escape(caption)}</figcaption>{svg}</figure>'
        for caption, svg in captioned
    )
    return Html('<div class="figures">\n' + "\n".join(made) + "\n</div>")


def code(text: str) -> Html:
    """A block of code or a command."""
    return Html(f"<pre><code>{escape(text)}</code></pre>")


def quote(text: str, note: str, *answers: Html) -> Html:
    """A question with its answers below."""
    head = f'<blockquote>{escape(text)}</blockquote>\n<p class="note">{escape(note)}</p>'
    return Html("\n".join(["<article>", head, *answers, "</article>"]))


def answer(number: int, name: str, note: str, text: str, praise: str = "") -> Html:
    """One answer, marked if there is praise for it; the first is unfolded."""
    mark = f'<span class="right">{escape(praise)}</span>' if praise else ""
    return Html(
        f'<details{" open" * (number == 1)}>\n<summary><span class="note">{number}</span><code>{escape(name)}</code>{mark}'
        f'<span class="note">{escape(note)}</span></summary>\n{code(text)}\n</details>'
    )
