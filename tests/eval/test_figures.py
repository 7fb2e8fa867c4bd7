import re

from e5jax.eval.figures import bars, radar

CATEGORIES = ["A", "B", "C", "D"]


def lengths(text: str) -> list[float]:
    return [float(width) for width in re.findall(r'<rect [^>]*width="([\d.]+)"', text)]


def lines(text: str) -> list[str]:
    return re.findall(r'<path d="(M[^"]*)" fill="none"', text)


def test_bars_are_as_long_as_their_scores_and_none_is_a_gap():
    half, whole, nothing, below = lengths(bars(CATEGORIES, {"one": [0.5, 1.0, None, -0.2]}))
    assert (nothing, below) == (0, 0)
    assert half * 2 == whole > 0


def test_a_radar_is_closed_and_open_where_a_score_is_missing():
    assert len(lines(radar(CATEGORIES, {"one": [0.5, 0.5, 0.5, 0.5]}))) == 4
    assert len(lines(radar(CATEGORIES, {"one": [0.5, 0.5, None, 0.5]}))) == 2
    ends = [
        line[1:].split("L") for line in lines(radar(CATEGORIES, {"one": [0.5, 0.25, 0.1, 1.0]}))
    ]
    assert [start for start, _ in ends] == [end for _, end in ends[-1:] + ends[:-1]]


def test_the_legend_names_every_system():
    names = ["one", "two & three", "four", "five", "six"]
    for drawn in (bars, radar):
        text = drawn(CATEGORIES, {name: [0.5] * 4 for name in names})
        assert all(f">{name.replace('&', '&amp;')}<" in text for name in names)
