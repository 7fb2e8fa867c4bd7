"""The rules against a plain loop over candidates."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from e5jax.errors import ConfigError
from e5jax.mine.rules import choose
from e5jax.mine.settings import Mining

SCORE = st.sampled_from([-0.5, -0.1, 0.0, 0.2, 0.4, 0.5, 0.55, 0.6, 0.8])  # few values: bounds are met exactly
MAYBE = st.none() | SCORE


def allowed(scores, places, positive, never, rules) -> list[int]:
    """Indices of all candidates that no rule forbids."""
    found, rank = [], 0
    for index, (score, place) in enumerate(zip(scores, places, strict=True)):
        if place < 0 or place in never:
            continue
        rank += 1
        if not rules.first <= rank <= rules.last:
            continue
        if rules.max_score is not None and score > rules.max_score:
            continue
        if rules.min_score is not None and score < rules.min_score:
            continue
        if rules.absolute_margin is not None and not score <= positive - rules.absolute_margin:
            continue
        if rules.relative_margin is not None and not score <= positive - rules.relative_margin * abs(positive):
            continue
        found.append(index)
    return found


@st.composite
def mining(draw: st.DrawFn) -> Mining:
    low, high = draw(MAYBE), draw(MAYBE)
    if low is not None and high is not None:
        low, high = min(low, high), max(low, high)
    count, first = draw(st.integers(1, 4)), draw(st.integers(1, 5))
    margins = st.none() | st.sampled_from([0.0, 0.05, 0.1, 0.5])
    return Mining(
        negatives=count,
        first=first,
        last=first + count - 1 + draw(st.integers(0, 8)),
        absolute_margin=draw(margins),
        relative_margin=draw(margins),
        min_score=low,
        max_score=high,
        pick=draw(st.sampled_from(["top", "random"])),
        seed=draw(st.integers(0, 3)),
    )


@settings(max_examples=300, deadline=None)
@given(st.lists(SCORE, max_size=15), st.integers(0, 3), SCORE, st.frozensets(st.integers(0, 15), max_size=4), mining())
def test_what_is_chosen_obeys_every_rule_and_everything_else_has_a_reason(scores, missing, positive, never, rules):
    scores = np.array(sorted(scores, reverse=True) + [-np.inf] * missing)
    places = np.array([*range(len(scores) - missing), *[-1] * missing], np.int64)
    fit = allowed(scores, places, positive, never, rules)
    choice = choose(scores, places, positive, never, rules, number=5)
    chosen = choice.chosen.tolist()
    assert chosen == sorted(set(chosen))
    assert set(chosen) <= set(fit)
    assert len(chosen) == min(len(fit), rules.negatives)
    if rules.pick == "top":
        assert chosen == fit[: rules.negatives]
    ranked = sum(place >= 0 and place not in never for place in places.tolist())
    beyond = max(0, ranked - rules.last)
    assert choice.dropped.total() + len(chosen) + beyond == (places >= 0).sum()
    assert choice.dropped["not_needed"] == len(fit) - len(chosen)


def test_random_picks_depend_on_seed_and_example_and_reach_every_rank():
    scores, places = np.linspace(0.9, 0.1, 10), np.arange(10)
    rules = Mining(negatives=3, pick="random", last=10)

    def picked(seed: int, number: int) -> tuple[int, ...]:
        return tuple(choose(scores, places, 1.0, frozenset(), dataclasses.replace(rules, seed=seed), number).chosen.tolist())

    assert picked(1, 2) == picked(1, 2)
    assert len({picked(1, number) for number in range(30)}) > 10
    assert len({picked(seed, 2) for seed in range(30)}) > 10
    assert {place for number in range(60) for place in picked(0, number)} == set(range(10))


def test_a_relative_margin_is_a_share_of_the_positives_score():
    scores = np.array([0.80, 0.77, 0.75, 0.30], np.float32)
    chosen = choose(scores, np.arange(4), 0.80, frozenset(), Mining(negatives=4, relative_margin=0.05), 0).chosen
    assert chosen.tolist() == [2, 3]


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"negatives": 0}, "--negatives=0"),
        ({"first": 0}, "--first=0"),
        ({"first": 3, "last": 4, "negatives": 3}, "--last=4"),
        ({"absolute_margin": -0.1}, "--absolute-margin=-0.1"),
        ({"relative_margin": float("nan")}, "--relative-margin=nan"),
        ({"min_score": 0.5, "max_score": 0.4}, "--min-score=0.5"),
        ({"pick": "worst"}, "--pick=worst"),
        ({"short": "pad"}, "--short=pad"),
        ({"shard": 0}, "--shard=0"),
        ({"seed": -1}, "--seed=-1"),
    ],
)
def test_wrong_settings_are_named_with_their_option(wrong, named):
    with pytest.raises(ConfigError, match=named):
        Mining(**wrong)
