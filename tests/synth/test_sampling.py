"""Weighted choices."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from e5jax.synth.sampling import apportion, parse, seeded, weighted


def test_weights_stand_behind_an_equals_sign():
    assert parse(("a=3", "b", "c=0")).shares() == {"a": 0.75, "b": 0.25}


def test_an_equals_sign_may_be_part_of_a_value():
    assert parse(("x=y",)).values == ("x=y",)


@pytest.mark.parametrize("texts", [(), ("a=0",), ("a", "a=2"), (" ",)])
def test_choices_without_a_choice_are_refused(texts):
    with pytest.raises(ValueError, match=r"weight|twice|blank"):
        parse(texts)


def test_picks_follow_the_weights_within_three_sigma():
    choices, n = parse(("a=6", "b=3", "c=1")), 20_000
    random = seeded("picks")
    picked = [choices.pick(random) for _ in range(n)]
    for value, share in choices.shares().items():
        assert abs(picked.count(value) - n * share) < 3 * (n * share * (1 - share)) ** 0.5


def test_the_seed_decides():
    assert [seeded(1, "a").random() for _ in range(2)] == [seeded(1, "a").random()] * 2
    assert seeded(1, "a").random() != seeded(1, "b").random()


def test_without_keeps_the_proportions_of_the_others():
    assert parse(("a=6", "b=3", "c=1")).without("a").shares() == pytest.approx(
        {"b": 0.75, "c": 0.25}
    )


@given(
    st.integers(0, 10_000),
    st.lists(st.floats(0, 1e6), min_size=1, max_size=9).filter(lambda shares: sum(shares) > 1e-3),
)
def test_apportioned_counts_add_up_and_are_next_to_their_exact_share(total, shares):
    counts = apportion(total, shares)
    assert sum(counts) == total
    for count, share in zip(counts, shares, strict=True):
        assert abs(count - total * share / sum(shares)) <= 1 + 1e-6


def test_weights_of_nothing_are_refused():
    with pytest.raises(ValueError, match="weight"):
        weighted([("a", 0.0)])
