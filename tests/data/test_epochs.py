"""Orders of epochs: exact, without a row twice in any span, and otherwise like random draws."""

from functools import cache
from itertools import combinations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.stats import hypergeom

from e5jax.config.mixture import Dataset, Mixture
from e5jax.data.epochs import Epochs, Span, key
from e5jax.data.sampler import make_sampler


def aligned(*widths: int):
    """Spans of these numbers of draws, one behind the other from the first draw on."""

    def spans(draw: int) -> list[Span]:
        return [Span(width - draw % width, draw % width) for width in widths if draw % width]

    return spans


@settings(max_examples=60)
@given(
    st.integers(1, 150),
    st.integers(1, 40),
    st.integers(1, 150),
    st.integers(1, 150),
    st.integers(0, 9),
)
def test_an_epoch_holds_every_row_once_and_a_span_none_twice_for_units_of_any_size(
    size, units, batch, part, seed
):
    assume(max(batch, part) <= size)
    draws = np.arange(7 * size)
    rows = Epochs(size, key(seed), aligned(batch, part), units).rows(draws)
    assert (np.sort(rows.reshape(7, size)) == np.arange(size)).all()
    for width in (batch, part):
        for start in range(0, len(rows) - width + 1, width):
            assert len(set(rows[start : start + width].tolist())) == width


@settings(max_examples=20)
@given(st.integers(2, 60), st.integers(1, 60), st.permutations(range(6)))
def test_the_order_of_an_epoch_does_not_depend_on_those_asked_before(size, batch, order):
    assume(batch <= size)
    used = Epochs(size, key("any"), aligned(batch), 16)
    for epoch in order:
        draws = np.arange(epoch * size, (epoch + 1) * size)
        np.testing.assert_array_equal(
            used.rows(draws), Epochs(size, key("any"), aligned(batch), 16).rows(draws)
        )


def mixture(order: str, batches: str, shares: str = "ratio", ratio: float = 1.0) -> Mixture:
    datasets = {"one": Dataset(("x",), ratio), "other": Dataset(("x",), ratio)}
    return Mixture(datasets, shares=shares, order=order, batches=batches)


@cache
def most_shared(size: int, first: int, second: int) -> float:
    """How many rows two random draws from a set share at most, but for once in ten million times."""
    return float(hypergeom(size, first, second).ppf(1 - 1e-7))


ONE = Mixture({"one": Dataset(("x",))})
SETS = {
    "as many batches as examples fill": (ONE, 2.0),
    "batches across the borders of epochs": (ONE, 2.1),
    "an epoch of three and a half batches": (ONE, 3.5),
    "an epoch of ten batches": (ONE, 10.0),
    "two sets, interleaved": (mixture("interleaved", "mixed"), 2.0),
    "two sets, drawn": (mixture("random", "mixed"), 3.3),
    "batches of one set": (mixture("interleaved", "homogeneous"), 2.2),
}


@pytest.mark.parametrize("name", SETS)
def test_batches_share_no_more_than_random_draws_do(name):
    of, times = SETS[name]
    queries, sets = 256, len(of.datasets)
    each = round(times * queries / (1 if of.batches == "homogeneous" else sets))
    draws = make_sampler(of, dict.fromkeys(of.datasets, each), queries, 0)
    taken: list[list[set[int]]] = []
    for step in range(60):
        drawn = draws(step)
        taken.append([set(drawn.rows[drawn.sets == number].tolist()) for number in range(sets)])
    for number in range(sets):
        batches = [rows[number] for rows in taken if rows[number]]
        pairs = [
            (first, second)
            for first, second in combinations(range(len(batches)), 2)
            if second > first + 2 * times
        ]
        shared = [len(batches[first] & batches[second]) for first, second in pairs]
        sizes = [(each, len(batches[first]), len(batches[second])) for first, second in pairs]
        assert all(count <= most_shared(*of) for count, of in zip(shared, sizes, strict=True))
        assert np.mean(shared) == pytest.approx(
            np.mean([first * second / each for _, first, second in sizes]), rel=0.03
        )


def test_parts_of_a_set_share_no_more_than_random_draws_do():
    draws = make_sampler(
        mixture("interleaved", "mixed", ratio=0.5), {"one": 1_000, "other": 1_000}, 100, 0
    )
    rows = np.concatenate([drawn.rows[drawn.sets == 0] for drawn in map(draws, range(200))])
    parts = [set(part.tolist()) for part in rows.reshape(-1, 500)]
    assert all(len(part) == 500 for part in parts)
    assert all(not first & second for first, second in zip(parts[::2], parts[1::2], strict=True))
    assert all(
        len(first & second) <= most_shared(1_000, 500, 500)
        for first, second in combinations(parts[::2], 2)
    )


def test_a_set_of_a_billion_examples_is_drawn_from_at_once_and_a_border_of_its_epochs_holds_none_twice():
    size, queries = 10**9 + 1, 2_048
    draws = make_sampler(Mixture({"one": Dataset(("x",))}), {"one": size}, queries, 0)
    step = 3 * size // queries
    assert (
        step * queries
    ) % size > size - queries  # the batch that begins in the third epoch and ends in the fourth
    drawn = draws(step).rows
    assert len(set(drawn.tolist())) == queries
    assert np.ptp(drawn) > 0.99 * size
