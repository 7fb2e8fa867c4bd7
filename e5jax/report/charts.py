"""Numbers in, inline SVG out: text stays text and takes the page's font, colours are the page's CSS variables."""

import itertools
import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from e5jax.report.page import Html

WIDTH, HEIGHT = 440, 270
LEFT, RIGHT, TOP, BOTTOM = 52, 22, 12, 38  # margins
SERIES = tuple(f"var(--series-{number})" for number in range(1, 5))
BINS = 40  # at most
_TEXT = 'fill="var(--muted)" font-size="12"'
_SMOOTHED = 30  # windows of a running mean along a curve
_TAIL = 0.99  # of the values have a bar of their own length; what is longer is one bar


class Axis(NamedTuple):
    """From values to places on the page."""

    low: float
    high: float
    start: float  # the place of `low`
    end: float
    whole: bool = True  # only whole numbers are marked

    def __call__(self, value: float) -> float:
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)


def curves(
    series: Mapping[str, tuple[Sequence[float], Sequence[float]]], from_zero: bool = False
) -> Html:
    """One line a run over its steps: the raw values faint, their running mean strong."""
    steps = [step for of, _ in series.values() for step in of]
    values = [value for _, of in series.values() for value in of]
    x = _across(0, max(steps, default=1))
    top = TOP + 22 if len(series) > 1 else TOP  # names stand above
    y = _up(
        0 if from_zero else min(values, default=0), max(values, default=1), whole=False, top=top
    )
    drawn = []
    for color, (of, raw) in zip(
        itertools.cycle(SERIES), filter(all, series.values()), strict=False
    ):
        width = max(1, len(raw) // _SMOOTHED)
        if width > 1:
            drawn.append(_line(x, y, of, raw, f'stroke="{color}" stroke-width="0.9" opacity="0.3"'))
        means = running_mean(np.asarray(raw, np.float64), width)
        drawn.append(
            _line(
                x,
                y,
                of,
                means.tolist(),
                f'stroke="{color}" stroke-width="1.9" stroke-linejoin="round"',
            )
        )
    return _svg(x, y, "step", [*drawn, *(_legend(list(series)) if len(series) > 1 else ())])


def points(series: Mapping[str, tuple[Sequence[float], Sequence[float]]], unit: str) -> Html:
    """One line of points a series; across are sizes above 0, each mark twice the one before, up from 0."""
    sizes = [math.log2(size) for across, _ in series.values() for size in across]
    x = _across(min(sizes, default=0), max(sizes, default=1))
    y = _up(
        0,
        max((value for _, of in series.values() for value in of), default=1),
        whole=False,
        top=TOP + 22,
    )
    drawn = []
    for color, (across, up) in zip(itertools.cycle(SERIES), series.values(), strict=False):
        ordered = sorted(zip(map(math.log2, across), up, strict=True))
        drawn.append(
            _line(
                x,
                y,
                [size for size, _ in ordered],
                [value for _, value in ordered],
                f'stroke="{color}"',
            )
        )
        drawn += [
            f'<circle cx="{x(size):.1f}" cy="{y(value):.1f}" r="3.5" fill="{color}"/>'
            for size, value in ordered
        ]
    return _svg(x, y, unit, [*drawn, *_legend(list(series))], power=True)


def histogram(lengths: Sequence[int], unit: str = "tokens", color: str = SERIES[0]) -> Html:
    """How many texts are how long, in bins of the same whole number; a faint last bar is all that are longer still."""
    most = max(lengths, default=0)
    tail = int(np.quantile(lengths, _TAIL, method="higher")) if lengths else 0
    shown = most if most <= 1.5 * tail else tail
    width = max(1, -(-(shown + 1) // BINS))  # values from 0 on
    bins = -(-(shown + 1) // width)
    counts = np.bincount(
        np.minimum(np.asarray(lengths, np.int64) // width, bins), minlength=bins + 1
    ).tolist()
    bars = bins + (counts[bins] > 0)
    x, y = _across(0, bars * width), _up(0, max(1, *counts), whole=True)
    drawn = [
        _bar(x, y, i * width, (i + 1) * width, count, color, 0.85 if i < bins else 0.4)
        for i, count in enumerate(counts)
    ]
    if counts[bins]:
        drawn.append(
            f'<text x="{WIDTH - RIGHT}" y="{TOP + 10}" text-anchor="end" {_TEXT}>last bar: {bins * width:,} to {most:,}</text>'
        )
    return _svg(x, y, unit, drawn)


def running_mean(values: Float[np.ndarray, " t"], width: int) -> Float[np.ndarray, " t"]:
    """The mean over a window centred on each value, of fewer values at both ends."""
    window = np.ones(width)
    return np.convolve(values, window, "same") / np.convolve(np.ones_like(values), window, "same")


def ticks(axis: Axis, count: int = 5) -> list[float]:
    """At most `count` + 1 round numbers of an axis: multiples of 1, 2 or 5 times a power of ten."""
    rough = (axis.high - axis.low) / count
    if axis.whole:
        rough = max(rough, 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * (1 - 1e-9))
    return [
        round(i * step, 12)
        for i in range(math.ceil(axis.low / step - 1e-9), math.floor(axis.high / step + 1e-9) + 1)
    ]


def _across(low: float, high: float) -> Axis:
    return Axis(low, high if high > low else low + 1, LEFT, WIDTH - RIGHT)


def _up(low: float, high: float, whole: bool, top: float = TOP) -> Axis:
    """With room above the highest value."""
    return Axis(
        low, high + 0.05 * (high - low) if high > low else low + 1, HEIGHT - BOTTOM, top, whole
    )


def _line(x: Axis, y: Axis, steps: Sequence[float], values: Sequence[float], style: str) -> str:
    points = " ".join(
        f"{x(step):.1f},{y(value):.1f}" for step, value in zip(steps, values, strict=True)
    )
    return f'<polyline points="{points}" fill="none" {style}/>'


def _bar(x: Axis, y: Axis, start: float, end: float, count: int, color: str, opacity: float) -> str:
    """With a gap of half a unit to the next, as far as there is room for one."""
    left, right = x(start), x(end)
    gap = min(1.0, (right - left) / 5)
    size = f'width="{right - left - gap:.2f}" height="{y(0) - y(count):.2f}"'
    return (
        f'<rect x="{left:.2f}" y="{y(count):.2f}" {size} fill="{color}" opacity="{opacity}"/>'
        if count
        else ""
    )


def _legend(names: Sequence[str]) -> list[str]:
    """Side by side above the frame."""
    made = []
    for number, (name, color) in enumerate(zip(names, itertools.cycle(SERIES), strict=False)):
        start = LEFT + number * (WIDTH - LEFT - RIGHT) / len(names)
        made.append(f'<path d="M{start:.0f} {TOP}h18" stroke="{color}" stroke-width="2.5"/>')
        made.append(f'<text x="{start + 24:.0f}" y="{TOP + 4}" {_TEXT}>{escape(name)}</text>')
    return made


def _svg(x: Axis, y: Axis, label: str, drawn: Sequence[str], power: bool = False) -> Html:
    """Rules and numbers of both axes below what is drawn; with `power` marks across are powers of two."""
    rules = [
        f'<path d="M{LEFT} {y(tick):.1f}H{WIDTH - RIGHT}" stroke="var(--rule)"/>'
        f'<text x="{LEFT - 8}" y="{y(tick) + 4:.1f}" text-anchor="end" {_TEXT}>{tick:,.10g}</text>'
        for tick in ticks(y)
    ]
    numbers = [
        f'<text x="{x(tick):.1f}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle" {_TEXT}>{2**tick if power else tick:,.10g}</text>'
        for tick in ticks(x)
    ]
    name = f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 4}" text-anchor="middle" {_TEXT}>{escape(label)}</text>'
    return Html(
        "\n".join(
            [
                f'<svg viewBox="0 0 {WIDTH} {HEIGHT}">',
                *rules,
                *numbers,
                name,
                *filter(None, drawn),
                "</svg>",
            ]
        )
    )
