"""Numbers in, inline SVG out: text stays text and takes the page's font, colours are the page's CSS variables."""

import io
import re
from collections.abc import Mapping, Sequence

import matplotlib as mpl
import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

# Matplotlib knows no CSS: these stand-ins are drawn, then replaced by variables, so that one SVG serves light and dark.
INK, RULE = "#010101", "#020202"
SERIES = ("#030303", "#040404")
_VARIABLES = {INK: "var(--muted)", RULE: "var(--rule)", SERIES[0]: "var(--series-1)", SERIES[1]: "var(--series-2)"}
_UNWANTED = (
    re.compile(r"<metadata>.*?</metadata>\s*", re.DOTALL),  # has the date
    re.compile(r"<style.*?</style>\s*", re.DOTALL),  # would apply to the whole page
    re.compile(r' id="[\w.]+_\d+"'),  # figure_1, axes_1, ...: the same in every plot
    re.compile(r" font-family: [^;]*;"),  # the page's font
    re.compile(r' (width|height)="[\d.]+pt"'),  # CSS gives the width, viewBox the shape
)
_SIZE = (4.4, 2.7)  # inches
_SMOOTHED = 30  # windows of a running mean along a curve


def curves(name: str, series: Mapping[str, tuple[Sequence[float], Sequence[float]]], from_zero: bool = False) -> str:
    """One line a run over its steps: the raw values faint, their running mean strong."""
    figure, axes = _axes()
    for color, (label, (steps, values)) in zip(SERIES, series.items(), strict=False):
        width = max(1, len(values) // _SMOOTHED)
        axes.plot(steps, values, color=color, alpha=0.25 if width > 1 else 0, linewidth=0.8)
        axes.plot(steps, running_mean(np.asarray(values, np.float64), width), color=color, linewidth=1.8, label=label)
    axes.set_xlabel("step")
    axes.set_xlim(left=0)
    if from_zero:
        axes.set_ylim(bottom=0)
    if len(series) > 1:
        axes.legend(frameon=False, labelcolor=INK, fontsize=9)
    return _svg(figure, name)


def histogram(name: str, lengths: Sequence[int], color: str = SERIES[0]) -> str:
    """How many texts have how many tokens."""
    figure, axes = _axes()
    axes.hist(lengths, bins=_bins(lengths), color=color, alpha=0.85)
    axes.set_xlabel("tokens")
    axes.set_xlim(left=0)
    axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    return _svg(figure, name)


def running_mean(values: Float[np.ndarray, " t"], width: int) -> Float[np.ndarray, " t"]:
    """The mean over a window centred on each value, of fewer values at both ends."""
    window = np.ones(width)
    return np.convolve(values, window, "same") / np.convolve(np.ones_like(values), window, "same")


def _bins(lengths: Sequence[int]) -> list[float]:
    """At most 40 bins of the same whole number of tokens: unequal ones would show as a comb."""
    most = max(lengths, default=1)
    width = -(-most // 40)
    return [edge + 0.5 for edge in range(0, most + width, width)]


def _axes() -> tuple[Figure, Axes]:
    figure = Figure(figsize=_SIZE, layout="constrained")
    axes = figure.add_subplot()
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(RULE)
    axes.grid(axis="y", color=RULE, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.tick_params(colors=INK, labelsize=9, length=0)
    axes.xaxis.label.set_color(INK)
    axes.xaxis.label.set_fontsize(9)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    return figure, axes


def _svg(figure: Figure, name: str) -> str:
    """The same bytes for the same numbers; ids are unique on a page when names are."""
    file = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        figure.savefig(file, format="svg", transparent=True)
    text = file.getvalue()
    text = text[text.index("<svg") :].strip()
    for pattern in _UNWANTED:
        text = pattern.sub("", text)
    for color, variable in _VARIABLES.items():
        text = text.replace(color, variable)
    return text
