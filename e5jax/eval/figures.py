"""Categories side by side, as bars and as a radar: scores from 0 to 1 in, inline SVG out. A missing score is a gap."""

import itertools
import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import NamedTuple

from e5jax.report.charts import SERIES
from e5jax.report.page import Html

Series = Mapping[str, Sequence[float | None]]  # by system, a score for each category

WIDTH, BAR, GAP = 440, 11, 12
LEFT, RIGHT, LINE = 128, 46, 16  # margins, and the height of a line of the legend
RADIUS = 96
RINGS = (0.25, 0.5, 0.75, 1.0)
_TEXT = 'fill="var(--muted)" font-size="12"'


def bars(categories: Sequence[str], series: Series) -> Html:
    """A group of bars for each category, with their scores in per cent."""
    group = BAR * len(series) + GAP
    above = _above(series)
    drawn = _legend(list(series))
    for row, category in enumerate(categories):
        top = above + row * group
        middle = top + BAR * len(series) / 2 + 4
        drawn.append(
            f'<text x="{LEFT - 8}" y="{middle:.1f}" text-anchor="end" {_TEXT}>{escape(category)}</text>'
        )
        for place, (values, color) in enumerate(
            zip(series.values(), itertools.cycle(SERIES), strict=False)
        ):
            drawn.append(_bar(top + place * BAR, values[row], color))
    return _svg(above + group * len(categories), drawn)


def _bar(y: float, score: float | None, color: str) -> str:
    text = "–" if score is None else f"{100 * score:.2f}"
    width = max(0.0, score or 0.0) * (WIDTH - LEFT - RIGHT)
    number = f'<text x="{LEFT + width + 5:.1f}" y="{y + BAR - 2:.1f}" font-size="10" fill="var(--muted)">{text}</text>'
    return f'<rect x="{LEFT}" y="{y + 0.5:.1f}" width="{width:.2f}" height="{BAR - 1}" fill="{color}"/>{number}'


def radar(categories: Sequence[str], series: Series) -> Html:
    """One spoke a category from 0 in the middle to 100; a system that lacks a category is open there."""
    circle = Circle(WIDTH / 2, _above(series) + RADIUS + 24, len(categories))
    rings = (
        " ".join(
            f"{x:.1f},{y:.1f}" for x, y in (circle(number, part) for number in range(circle.spokes))
        )
        for part in RINGS
    )
    drawn = [f'<polygon points="{ring}" fill="none" stroke="var(--rule)"/>' for ring in rings]
    for number, category in enumerate(categories):
        (x, y), (end_x, end_y) = circle(number, 1.12), circle(number, 1)
        anchor = "middle" if abs(x - circle.x) < 20 else ("start" if x > circle.x else "end")
        drawn.append(
            f'<path d="M{circle.x} {circle.y}L{end_x:.1f} {end_y:.1f}" stroke="var(--rule)"/>'
        )
        drawn.append(
            f'<text x="{x:.1f}" y="{y + 4:.1f}" text-anchor="{anchor}" {_TEXT}>{escape(category)}</text>'
        )
    for values, color in zip(series.values(), itertools.cycle(SERIES), strict=False):
        drawn += [
            f'<path d="{line}" fill="none" stroke="{color}" stroke-width="2"/>'
            for line in _outline(circle, values)
        ]
    return _svg(circle.y + RADIUS + 24, [*drawn, *_legend(list(series))])


class Circle(NamedTuple):
    """From a part of a spoke to its place; the first spoke points up, below 0 is 0."""

    x: float
    y: float
    spokes: int

    def __call__(self, number: int, part: float) -> tuple[float, float]:
        angle = 2 * math.pi * number / self.spokes
        reach = RADIUS * max(0.0, part)
        return self.x + reach * math.sin(angle), self.y - reach * math.cos(angle)


def _outline(circle: Circle, values: Sequence[float | None]) -> list[str]:
    """Lines between neighbours that are both there; all of them are the closed outline."""
    count = len(values)
    lines = []
    for number in range(count):
        here, there = values[number], values[(number + 1) % count]
        if here is not None and there is not None:
            (x, y), (to_x, to_y) = circle(number, here), circle((number + 1) % count, there)
            lines.append(f"M{x:.1f} {y:.1f}L{to_x:.1f} {to_y:.1f}")
    return lines


def _above(series: Series) -> float:
    """Room for the legend."""
    return LINE * -(-len(series) // 2) + 12


def _legend(names: Sequence[str]) -> list[str]:
    """At the top, two a line."""
    made = []
    for number, (name, color) in enumerate(zip(names, itertools.cycle(SERIES), strict=False)):
        start, y = 8 + number % 2 * WIDTH / 2, 9 + number // 2 * LINE
        made.append(f'<path d="M{start:.0f} {y}h14" stroke="{color}" stroke-width="3"/>')
        made.append(f'<text x="{start + 20:.0f}" y="{y + 4}" {_TEXT}>{escape(name)}</text>')
    return made


def _svg(height: float, drawn: Sequence[str]) -> Html:
    return Html("\n".join([f'<svg viewBox="0 0 {WIDTH} {height:.0f}">', *drawn, "</svg>"]))
