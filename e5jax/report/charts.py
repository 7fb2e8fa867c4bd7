"""Numbers in, inline SVG out: text takes the page's font, colours are the page's CSS variables."""

import itertools
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from html import escape
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from e5jax.report.page import Html

WIDTH, HEIGHT = 440, 270
LEFT, RIGHT, TOP, BOTTOM = 52, 22, 12, 38  # margins
SERIES = tuple(f"var(--series-{number})" for number in range(1, 5))
MAX_BINS = 40
_TEXT = 'fill="var(--muted)" font-size="12"'
_LEGEND = 22  # height
_WINDOWS = 30  # of a running mean along a curve
_TAIL = 0.99  # share of values with bins of their own; longer ones share one bar

Series = Mapping[str, tuple[Sequence[float], Sequence[float]]]  # name -> x and y values


class Axis(NamedTuple):
    """Maps values from `low` to `high` to places from `start` to `end`."""

    low: float
    high: float
    start: float
    end: float
    whole: bool = True  # only whole numbers have ticks

    def __call__(self, value: float) -> float:
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)


def curves(series: Series, from_zero: bool = False) -> Html:
    """A line for each run by step: raw values faint, their running mean strong."""
    x, y = _axes(series, 0, 0 if from_zero else None, legend=len(series) > 1)
    lines = []
    for color, steps, raw in _colored(series):
        width = max(1, len(raw) // _WINDOWS)
        if width > 1:
            faint = f'stroke="{color}" stroke-width="0.9" opacity="0.3"'
            lines.append(_line(x, y, steps, raw, faint))
        means = running_mean(np.asarray(raw, np.float64), width).tolist()
        strong = f'stroke="{color}" stroke-width="1.9" stroke-linejoin="round"'
        lines.append(_line(x, y, steps, means, strong))
    return _svg(x, y, "step", [*lines, *(_legend(series) if len(series) > 1 else ())])


def points(series: Series, unit: str) -> Html:
    """A line of points for each series; x values are positive, and their axis is logarithmic."""
    pairs = {
        name: sorted(zip(map(math.log2, sizes), values, strict=True))
        for name, (sizes, values) in series.items()
    }
    logarithms = {
        name: ([size for size, _ in each], [value for _, value in each])
        for name, each in pairs.items()
    }
    x, y = _axes(logarithms, None, 0, legend=True)
    lines = []
    for color, sizes, values in _colored(logarithms):
        lines.append(_line(x, y, sizes, values, f'stroke="{color}"'))
        lines += [
            f'<circle cx="{x(size):.1f}" cy="{y(value):.1f}" r="3.5" fill="{color}"/>'
            for size, value in zip(sizes, values, strict=True)
        ]
    return _svg(x, y, unit, [*lines, *_legend(series)], logarithmic=True)


def histogram(lengths: Sequence[int], unit: str = "tokens") -> Html:
    """Counts in bins of equal whole width from 0; a faint last bar has all that are longer."""
    longest = max(lengths, default=0)
    tail = int(np.quantile(lengths, _TAIL, method="higher")) if lengths else 0
    shown = longest if longest <= 1.5 * tail else tail
    width = math.ceil((shown + 1) / MAX_BINS)
    bins = math.ceil((shown + 1) / width)
    places = np.minimum(np.asarray(lengths, np.int64) // width, bins)
    counts = np.bincount(places, minlength=bins + 1).tolist()
    x = _x_axis(0, (bins + (counts[bins] > 0)) * width)
    y = _y_axis(0, max(1, *counts), whole=True)
    bars = [
        _bar(x, y, i * width, (i + 1) * width, count, opacity=0.85 if i < bins else 0.4)
        for i, count in enumerate(counts)
        if count
    ]
    if counts[bins]:
        bars.append(
            f'<text x="{WIDTH - RIGHT}" y="{TOP + 10}" text-anchor="end" {_TEXT}>'
            f"last bar: {bins * width:,} to {longest:,}</text>"
        )
    return _svg(x, y, unit, bars)


def running_mean(values: Float[np.ndarray, " t"], width: int) -> Float[np.ndarray, " t"]:
    """The mean over a window centred on each value, with fewer values at both ends."""
    window = np.ones(width)
    return np.convolve(values, window, "same") / np.convolve(np.ones_like(values), window, "same")


def ticks(axis: Axis, count: int = 5) -> list[float]:
    """At most `count` + 1 round numbers: multiples of 1, 2 or 5 times a power of ten."""
    rough = (axis.high - axis.low) / count
    rough = max(rough, 1) if axis.whole else rough
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * (1 - 1e-9))
    first, last = math.ceil(axis.low / step - 1e-9), math.floor(axis.high / step + 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]


def _colored(series: Series) -> Iterator[tuple[str, Sequence[float], Sequence[float]]]:
    """Colour, x and y values of each series that has any."""
    colors = itertools.cycle(SERIES)
    return ((color, *xy) for xy, color in zip(filter(all, series.values()), colors, strict=False))


def _axes(
    series: Series, left: float | None, bottom: float | None, *, legend: bool
) -> tuple[Axis, Axis]:
    """Axes for all values, from `left` and `bottom` or else from the least values."""
    across = [value for xs, _ in series.values() for value in xs]
    up = [value for _, ys in series.values() for value in ys]
    x = _x_axis(min(across, default=0) if left is None else left, max(across, default=1))
    low = min(up, default=0) if bottom is None else bottom
    return x, _y_axis(low, max(up, default=1), top=TOP + _LEGEND * legend)


def _x_axis(low: float, high: float) -> Axis:
    return Axis(low, high if high > low else low + 1, LEFT, WIDTH - RIGHT)


def _y_axis(low: float, high: float, *, whole: bool = False, top: float = TOP) -> Axis:
    """With room above the highest value."""
    end = high + 0.05 * (high - low) if high > low else low + 1
    return Axis(low, end, HEIGHT - BOTTOM, top, whole)


def _line(x: Axis, y: Axis, xs: Sequence[float], ys: Sequence[float], style: str) -> str:
    places = " ".join(f"{x(a):.1f},{y(b):.1f}" for a, b in zip(xs, ys, strict=True))
    return f'<polyline points="{places}" fill="none" {style}/>'


def _bar(x: Axis, y: Axis, start: float, end: float, count: int, opacity: float) -> str:
    left, width = x(start), x(end) - x(start)
    gap = min(1.0, width / 5)
    return (
        f'<rect x="{left:.2f}" y="{y(count):.2f}" width="{width - gap:.2f}" '
        f'height="{y(0) - y(count):.2f}" fill="{SERIES[0]}" opacity="{opacity}"/>'
    )


def _legend(names: Collection[str]) -> list[str]:
    """Names side by side above the frame."""
    marks = []
    for number, (name, color) in enumerate(zip(names, itertools.cycle(SERIES), strict=False)):
        start = LEFT + number * (WIDTH - LEFT - RIGHT) / len(names)
        marks.append(f'<path d="M{start:.0f} {TOP}h18" stroke="{color}" stroke-width="2.5"/>')
        marks.append(f'<text x="{start + 24:.0f}" y="{TOP + 4}" {_TEXT}>{escape(name)}</text>')
    return marks


def _svg(
    x: Axis, y: Axis, label: str, content: Sequence[str], *, logarithmic: bool = False
) -> Html:
    """The content above rules and ticks; `logarithmic`: ticks of x are powers of two."""
    rules = [
        f'<path d="M{LEFT} {y(tick):.1f}H{WIDTH - RIGHT}" stroke="var(--rule)"/>'
        f'<text x="{LEFT - 8}" y="{y(tick) + 4:.1f}" text-anchor="end" {_TEXT}>{tick:,.10g}</text>'
        for tick in ticks(y)
    ]
    middle = f'text-anchor="middle" {_TEXT}'
    numbers = [
        f'<text x="{x(tick):.1f}" y="{HEIGHT - BOTTOM + 16}" {middle}>'
        f"{2**tick if logarithmic else tick:,.10g}</text>"
        for tick in ticks(x)
    ]
    center = (LEFT + WIDTH - RIGHT) / 2
    name = f'<text x="{center}" y="{HEIGHT - 4}" {middle}>{escape(label)}</text>'
    head = f'<svg viewBox="0 0 {WIDTH} {HEIGHT}">'
    return Html("\n".join([head, *rules, *numbers, name, *content, "</svg>"]))
