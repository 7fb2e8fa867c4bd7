import random
import re

import numpy as np
import pytest

from e5jax.report.charts import (
    HEIGHT,
    LEFT,
    MAX_BINS,
    RIGHT,
    TOP,
    WIDTH,
    Axis,
    curves,
    histogram,
    points,
    running_mean,
    ticks,
)

HOSTILE = '</svg><script>alert("&")</script>'


def bars(svg):
    """x, y, width, height and opacity of every bar."""
    numbers = re.findall(
        r'<rect x="(.+?)" y="(.+?)" width="(.+?)" height="(.+?)" .*?opacity="(.+?)"', svg
    )
    return [[float(value) for value in bar] for bar in numbers]


@pytest.mark.parametrize("seed", range(5))
def test_heights_of_bars_are_the_counts_of_a_histogram(seed):
    chooser = random.Random(seed)
    lengths = [chooser.randint(0, chooser.choice([30, 500])) for _ in range(1_000)]
    width = -(-(max(lengths) + 1) // MAX_BINS)
    counts, _ = np.histogram(lengths, np.arange(0, max(lengths) + width + 1, width) - 0.5)
    heights = np.array([bar[3] for bar in bars(histogram(lengths))])
    expected = counts[counts > 0]
    assert heights.shape == expected.shape
    np.testing.assert_allclose(
        heights / heights.max(), expected / expected.max(), atol=1e-3
    )  # places have two digits


def test_a_long_tail_is_one_faint_bar_with_its_range():
    lengths = [*range(1, 101)] * 10 + [5_000] * 5
    svg = histogram(lengths)
    *short, last = bars(svg)
    assert (len(short), {bar[4] for bar in short}, last[4]) == (34, {0.85}, 0.4)
    assert "last bar: 102 to 5,000" in svg
    assert "last bar" not in histogram(lengths[:-5])


@pytest.mark.parametrize(
    "lengths", [[], [0], [3], [3] * 100, [0, 10_000_000], list(range(40)), list(range(41))]
)
def test_bars_lie_within_the_frame_and_all_texts_are_in_one(lengths):
    svg = histogram(lengths)
    drawn = bars(svg)
    assert len(drawn) <= MAX_BINS + 1
    assert bool(drawn) == bool(lengths)
    for x, y, width, height, _ in drawn:
        assert LEFT <= x < x + width <= WIDTH - RIGHT + 0.01
        assert TOP <= y < y + height <= HEIGHT
        assert width > 0


def test_a_curve_goes_through_its_values():
    svg = curves({"a": ([0, 1, 2, 4], [3.0, 2.0, 1.0, 0.5])}, from_zero=True)
    (points,) = re.findall(r'points="([^"]*)"', svg)
    places = np.array([[float(part) for part in point.split(",")] for point in points.split()])
    x, y = places[:, 0], places[:, 1]
    np.testing.assert_allclose((x - x[0]) / (x[-1] - x[0]), [0, 0.25, 0.5, 1], atol=1e-3)
    np.testing.assert_allclose(
        (y[0] - y) / (y[0] - y[-1]), np.array([0, 1, 2, 2.5]) / 2.5, atol=1e-3
    )
    assert y[0] < y[-1]  # up is less


def test_long_curves_show_raw_values_and_their_mean():
    steps, values = list(range(90)), [float(i % 2) for i in range(90)]
    raw, mean = (
        [float(point.split(",")[1]) for point in points.split()]
        for points in re.findall(r'points="([^"]*)"', curves({"a": (steps, values)}))
    )
    assert np.ptp(raw) > 2.9 * np.ptp(mean[1:-1])


@pytest.mark.parametrize(
    "series", [{}, {"a": ([], [])}, {"a": ([1], [2.0])}, {"a": ([0, 1], [2.0, 2.0])}]
)
def test_curves_of_little_are_drawn(series):
    assert "nan" not in curves(series)


def test_ticks_are_few_round_numbers_within_the_axis():
    chooser = random.Random(0)
    for _ in range(500):
        low = chooser.choice([0, chooser.uniform(-5, 5) * 10 ** chooser.randint(-2, 6)])
        high = low + 10 ** chooser.uniform(-2, 7)
        marks = ticks(Axis(low, high, 0, 1, whole=False))
        assert 2 <= len(marks) <= 6
        assert low - 1e-9 * abs(low) <= marks[0]
        assert marks[-1] <= high + 1e-9 * abs(high)
        step = marks[1] - marks[0]  # of numbers that may be 10⁸ times as large
        assert (
            min(
                abs(step / (factor * 10.0**power) - 1)
                for factor in (1, 2, 5)
                for power in range(-4, 9)
            )
            < 1e-5
        )
        assert all(tick == round(tick) for tick in ticks(Axis(low, high, 0, 1)))


def test_charts_have_no_fixed_colours_fonts_or_size():
    text = curves({"x": ([0, 1, 2], [3.0, 2.0, 1.0]), "y": ([0, 1], [1.0, 2.0])}) + histogram(
        [1, 2, 3]
    )
    assert "var(--series-1)" in text
    assert "var(--series-2)" in text
    assert not re.findall(
        r"#[0-9a-f]{3,6}|font-family|<style|<svg[^>]* (?:width|height)=|\bid=", text
    )


def test_hostile_names_are_escaped():
    text = curves({HOSTILE: ([0], [1.0]), "b": ([0], [1.0])}) + histogram([1], HOSTILE)
    assert "<script" not in text
    assert text.count("&lt;script&gt;") == 2


def test_the_running_mean_is_a_mean_over_a_centred_window():
    values = np.array([1.0, 2.0, 6.0, 4.0, 5.0])
    np.testing.assert_allclose(running_mean(values, 3), [1.5, 3.0, 4.0, 5.0, 4.5])
    np.testing.assert_allclose(running_mean(values, 1), values)


def test_points_stand_at_powers_of_two_and_at_their_values():
    svg = points(
        {"a": ([32, 128, 512], [0.5, 1.0, 0.75]), HOSTILE: ([64, 256], [0.25, 0.0])}, "bytes"
    )
    places = np.array(re.findall(r'<circle cx="([\d.]+)" cy="([\d.]+)"', svg), float)
    across, up = places.T
    np.testing.assert_allclose(
        np.diff(across[:3]), np.diff(across[:3])[0], atol=0.11
    )  # places have one digit
    np.testing.assert_allclose(across[3:], (across[:2] + across[1:3]) / 2, atol=0.11)
    np.testing.assert_allclose(
        (up[4] - up) / (up[4] - up[1]), [0.5, 1.0, 0.75, 0.25, 0.0], atol=2e-3
    )
    assert re.findall(r'text-anchor="middle" [^>]*>([\d,]+)</text>', svg) == [
        "32",
        "64",
        "128",
        "256",
        "512",
    ]
    assert "<script" not in svg
