"""Which of a query's candidates become negatives, and why the others do not."""

from collections import Counter
from collections.abc import Iterator, Set
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from e5jax.mine.settings import Bounds, Mining


class Choice(NamedTuple):
    """Candidates chosen, as indices into the ranking, best first; and how many others fell to which rule."""

    chosen: Int[np.ndarray, " n"]
    dropped: Counter[str]
    candidates: Bool[np.ndarray, " k"]  # what had a rank up to the last one asked for


class Scored(NamedTuple):
    """A query's ranking as somebody scored it; NaN where they did not."""

    candidates: Float[np.ndarray, " k"]
    positives: Float[np.ndarray, " p"]


def choose(
    ranking: Scored,
    places: Int[np.ndarray, " k"],
    never: Set[int],
    rules: Mining,
    number: int,
    teacher: Scored | None = None,
) -> Choice:
    """Negatives of example `number` from its ranking, best first; places below 0 are empty.

    `never` are the places that are positives or the query itself. What a teacher did not score it cannot have approved.
    """
    dropped: Counter[str] = Counter()
    left = places >= 0

    def drop(reason: str, condition: Bool[np.ndarray, " k"]) -> None:
        nonlocal left
        dropped[reason] += int((left & condition).sum())
        left = left & ~condition

    drop("excluded", np.fromiter((place in never for place in places.tolist()), bool, len(places)))
    rank = np.cumsum(left)
    left &= rank <= rules.last  # beyond it nothing was asked for
    candidates = left
    drop("rank", rank < rules.first)
    for reason, condition in _outside(ranking, rules.bounds):
        drop(reason, condition)
    if teacher is not None:
        drop("teacher_missing", np.isnan(teacher.candidates))
        for reason, condition in _outside(teacher, rules.teacher_bounds):
            drop(f"teacher_{reason}", condition)
    fit = np.flatnonzero(left)
    if rules.pick == "top" or len(fit) <= rules.negatives:
        chosen = fit[: rules.negatives]
    else:
        random = np.random.default_rng(
            [rules.seed, number]
        )  # of the example alone: its place among others counts, not theirs
        chosen = np.sort(random.choice(fit, rules.negatives, replace=False))
    dropped["not_needed"] += len(fit) - len(chosen)
    return Choice(chosen, +dropped, candidates)


def _outside(scored: Scored, bounds: Bounds) -> Iterator[tuple[str, Bool[np.ndarray, " k"]]]:
    """Which candidates break which rule. A positive without a score allows no margin, so that none is kept."""
    scores, positive = scored.candidates, scored.positives.min()  # NaN if one of them is
    if bounds.max_score is not None:
        yield "max_score", scores > bounds.max_score
    if bounds.min_score is not None:
        yield "min_score", scores < bounds.min_score
    if bounds.absolute_margin is not None:
        yield "absolute_margin", ~(scores <= positive - bounds.absolute_margin)
    if bounds.relative_margin is not None:
        yield "relative_margin", ~(scores <= positive - bounds.relative_margin * abs(positive))
