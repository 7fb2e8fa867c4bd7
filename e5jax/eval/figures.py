"""Categories side by side, as bars and as a radar: scores from 0 to 1 in, inline SVG out. A missing score is a gap."""

import itertools
import math
from collections.abc import Mapping, Sequence
from html import escape

from e5jax.charts import SERIES
from e5jax.page import Html

Series = Mapping[str, Sequence[float | None]]  # by system, a score for each category

WIDTH, BAR, GAP = 440, 11, 12
LEFT, RIGHT, TOP = 128, 46, 24  # margins
RADIUS, CENTRE = 118, (220, 176)
RINGS = (0.25, 0.5, 0.75, 1.0)
_TEXT = 'fill="var(--muted)" font-size="12"'


def bars(categories: Sequence[str], series: Series) -> Html:
    """A group of bars for each category, with their scores in per cent."""
    group = BAR * len(series) + GAP
    height = TOP + group * len(categories)
    drawn = _legend(list(series))
    for row, category in enumerate(categories):
        top = TOP + row * group
        middle = top + BAR * len(series) / 2 + 4
        drawn.append(f'<text x="{LEFT - 8}" y="{middle:.1f}" text-anchor="end" {_TEXT}>{escape(category)}</text>')
        for place, (values, color) in enumerate(zip(series.values(), itertools.cycle(SERIES), strict=False)):
            drawn.append(_bar(top + place * BAR, values[row], color))
    return _svg(height, drawn)


def _bar(y: float, score: float | None, color: str) -> str:
    text = "–" if score is None else f"{100 * score:.2f}"
    width = max(0.0, score or 0.0) * (WIDTH - LEFT - RIGHT)
    number = f'<text x="{LEFT + width + 5:.1f}" y="{y + BAR - 2:.1f}" font-size="10" fill="var(--muted)">{text}</text>'
    return f'<rect x="{LEFT}" y="{y + 0.5:.1f}" width="{width:.2f}" height="{BAR - 1}" fill="{color}"/>{number}'


def radar(categories: Sequence[str], series: Series) -> Html:
    """One spoke a category from 0 in the middle to 100; a system that lacks a category is open there."""
    drawn = [f'<polygon points="{_ring(len(categories), part)}" fill="none" stroke="var(--rule)"/>' for part in RINGS]
    for number, category in enumerate(categories):
        x, y = _place(number, len(categories), 1.12)
        anchor = "middle" if abs(x - CENTRE[0]) < 20 else ("start" if x > CENTRE[0] else "end")
        ex, ey = _place(number, len(categories), 1)
        drawn.append(f'<path d="M{CENTRE[0]} {CENTRE[1]}L{ex:.1f} {ey:.1f}" stroke="var(--rule)"/>')
        drawn.append(f'<text x="{x:.1f}" y="{y + 4:.1f}" text-anchor="{anchor}" {_TEXT}>{escape(category)}</text>')
    for values, color in zip(series.values(), itertools.cycle(SERIES), strict=False):
        drawn += [f'<path d="{line}" fill="none" stroke="{color}" stroke-width="2"/>' for line in _outline(values)]
    return _svg(2 * CENTRE[1], [*drawn, *_legend(list(series))])


def _outline(values: Sequence[float | None]) -> list[str]:
    """Lines between neighbours that are both there; all of them are the closed outline."""
    count = len(values)
    lines = []
    for number in range(count):
        here, there = values[number], values[(number + 1) % count]
        if here is not None and there is not None:
            (x, y), (to_x, to_y) = _place(number, count, here), _place((number + 1) % count, count, there)
            lines.append(f"M{x:.1f} {y:.1f}L{to_x:.1f} {to_y:.1f}")
    return lines


def _place(number: int, count: int, part: float) -> tuple[float, float]:
    """On a spoke, the first of which points up; below 0 is 0."""
    angle = 2 * math.pi * number / count
    part = max(0.0, part)
    return CENTRE[0] + RADIUS * part * math.sin(angle), CENTRE[1] - RADIUS * part * math.cos(angle)


def _ring(count: int, part: float) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in (_place(number, count, part) for number in range(count)))


def _legend(names: Sequence[str]) -> list[str]:
    """Side by side at the top."""
    made = []
    for number, (name, color) in enumerate(zip(names, itertools.cycle(SERIES), strict=False)):
        start = 8 + number * (WIDTH - 8) / len(names)
        made.append(f'<path d="M{start:.0f} 9h14" stroke="{color}" stroke-width="3"/>')
        made.append(f'<text x="{start + 20:.0f}" y="13" {_TEXT}>{escape(name)}</text>')
    return made


def _svg(height: float, drawn: Sequence[str]) -> Html:
    return Html("\n".join([f'<svg viewBox="0 0 {WIDTH} {height:.0f}">', *drawn, "</svg>"]))
