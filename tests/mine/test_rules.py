"""The rules against a plain loop over candidates."""

import dataclasses
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from e5jax.errors import ConfigError
from e5jax.mine.rules import Scored, choose
from e5jax.mine.settings import Mining

SCORE = st.sampled_from(
    [-0.5, -0.1, 0.0, 0.2, 0.4, 0.5, 0.55, 0.6, 0.8]
)  # few values: bounds are met exactly
MAYBE = st.none() | SCORE


def broken(
    score: float,
    positives: np.ndarray,
    low: float | None,
    high: float | None,
    *margins: float | None,
) -> str:
    """The first rule of scores that a candidate breaks, or nothing."""
    if high is not None and score > high:
        return "max_score"
    if low is not None and score < low:
        return "min_score"
    for name, margin, scale in zip(
        ("absolute_margin", "relative_margin"), margins, (1, abs(min(positives))), strict=True
    ):
        if margin is not None and (
            np.isnan(positives).any() or score > min(positives) - margin * scale
        ):
            return name
    return ""


def judged(
    ranking: Scored, places: list[int], never: frozenset[int], rules: Mining, teacher: Scored | None
) -> list[str | None]:
    """Of each place of the ranking the first rule that it breaks; nothing if it is fit, None if it was no candidate."""
    reasons: list[str | None] = []
    rank = 0
    of_model = rules.min_score, rules.max_score, rules.absolute_margin, rules.relative_margin
    of_teacher = (
        rules.teacher_min_score,
        rules.teacher_max_score,
        rules.teacher_absolute_margin,
        rules.teacher_relative_margin,
    )
    for index, place in enumerate(places):
        rank += place >= 0 and place not in never
        if place < 0 or (rank > rules.last and place not in never):
            reasons.append(None)
        elif place in never:
            reasons.append("excluded")
        elif rank < rules.first:
            reasons.append("rank")
        elif reason := broken(ranking.candidates[index], ranking.positives, *of_model):
            reasons.append(reason)
        elif teacher is not None and np.isnan(teacher.candidates[index]):
            reasons.append("teacher_missing")
        else:
            reason = teacher and broken(teacher.candidates[index], teacher.positives, *of_teacher)
            reasons.append(f"teacher_{reason}" if reason else "")
    return reasons


@st.composite
def bounds(draw: st.DrawFn, prefix: str = "") -> dict[str, float | None]:
    low, high = draw(MAYBE), draw(MAYBE)
    if low is not None and high is not None:
        low, high = min(low, high), max(low, high)
    margins = st.none() | st.sampled_from([0.0, 0.05, 0.1, 0.5])
    found = {
        "min_score": low,
        "max_score": high,
        "absolute_margin": draw(margins),
        "relative_margin": draw(margins),
    }
    return {prefix + name: value for name, value in found.items()}


@st.composite
def mining(draw: st.DrawFn, taught: bool) -> Mining:
    count, first = draw(st.integers(1, 4)), draw(st.integers(1, 5))
    return Mining(
        negatives=count,
        first=first,
        last=first + count - 1 + draw(st.integers(0, 8)),
        scores="scores.jsonl" if taught else None,
        pick=draw(st.sampled_from(["top", "random"])),
        seed=draw(st.integers(0, 3)),
        **draw(bounds()),
        **(draw(bounds("teacher_")) if taught else {}),
    )


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_what_is_chosen_obeys_every_rule_and_everything_else_has_the_first_rule_it_breaks_as_reason(
    data,
):
    scores = np.array(sorted(data.draw(st.lists(SCORE, max_size=15)), reverse=True))
    missing, taught = data.draw(st.integers(0, 3)), data.draw(st.booleans())
    places = np.array([*data.draw(st.permutations(range(len(scores)))), *[-1] * missing], np.int64)
    never, rules = (
        data.draw(st.frozensets(st.integers(0, 15), max_size=4)),
        data.draw(mining(taught)),
    )
    ranking = Scored(
        np.append(scores, [-np.inf] * missing),
        np.array(data.draw(st.lists(SCORE, min_size=1, max_size=3))),
    )
    maybe = st.lists(SCORE | st.just(np.nan), min_size=len(places), max_size=len(places))
    positives = st.lists(st.sampled_from([0.4, 0.6, 0.8, np.nan]), min_size=1, max_size=2)
    teacher = Scored(np.array(data.draw(maybe)), np.array(data.draw(positives))) if taught else None
    reasons = judged(ranking, places.tolist(), never, rules, teacher)
    fit = [index for index, reason in enumerate(reasons) if reason == ""]
    choice = choose(ranking, places, never, rules, 5, teacher)
    chosen = choice.chosen.tolist()
    assert chosen == sorted(set(chosen))
    assert set(chosen) <= set(fit)
    assert len(chosen) == min(len(fit), rules.negatives)
    if rules.pick == "top":
        assert chosen == fit[: rules.negatives]
    spare = {"not_needed": len(fit) - len(chosen)} if len(fit) > len(chosen) else {}
    assert choice.dropped == Counter(reason for reason in reasons if reason) + Counter(spare)
    assert choice.candidates.tolist() == [reason not in (None, "excluded") for reason in reasons]


def test_random_picks_depend_on_seed_and_example_and_reach_every_rank():
    scores, places = np.linspace(0.9, 0.1, 10), np.arange(10)
    rules = Mining(negatives=3, pick="random", last=10)

    def picked(seed: int, number: int) -> tuple[int, ...]:
        return tuple(
            choose(
                Scored(scores, np.ones(1)),
                places,
                frozenset(),
                dataclasses.replace(rules, seed=seed),
                number,
            ).chosen.tolist()
        )

    assert picked(1, 2) == picked(1, 2)
    assert len({picked(1, number) for number in range(30)}) > 10
    assert len({picked(seed, 2) for seed in range(30)}) > 10
    assert {place for number in range(60) for place in picked(0, number)} == set(range(10))


def test_a_relative_margin_is_a_share_of_the_positives_score():
    scores = np.array([0.80, 0.77, 0.75, 0.30], np.float32)
    ranking = Scored(scores, np.array([0.95, 0.80]))  # the lower positive counts
    chosen = choose(
        ranking, np.arange(4), frozenset(), Mining(negatives=4, relative_margin=0.05), 0
    ).chosen
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
        ({"min_score": float("inf")}, "--min-score=inf"),
        ({"teacher_max_score": 1.0}, "--teacher-max-score=1.0: needs"),
        (
            {"teacher_min_score": 2.0, "teacher_max_score": 1.0, "scores": "x"},
            "--teacher-min-score=2.0",
        ),
        ({"teacher_relative_margin": -1.0, "scores": "x"}, "--teacher-relative-margin=-1.0"),
        ({"pick": "worst"}, "--pick=worst"),
        ({"short": "pad"}, "--short=pad"),
        ({"shard": 0}, "--shard=0"),
        ({"seed": -1}, "--seed=-1"),
    ],
)
def test_wrong_settings_are_named_with_their_option(wrong, named):
    with pytest.raises(ConfigError, match=named):
        Mining(**wrong)
