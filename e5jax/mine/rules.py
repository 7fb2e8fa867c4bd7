"""Which of a query's candidates become negatives, and why the others do not."""

from collections import Counter
from collections.abc import Set
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from e5jax.mine.settings import Mining


class Choice(NamedTuple):
    """Candidates chosen, as indices into the ranking, best first; and how many others fell to which rule."""

    chosen: Int[np.ndarray, " n"]
    dropped: Counter[str]


def choose(
    scores: Float[np.ndarray, " k"],
    places: Int[np.ndarray, " k"],
    positive: float,
    never: Set[int],
    rules: Mining,
    number: int,
) -> Choice:
    """Negatives of example `number` from its ranking, best first; places below 0 are empty.

    `positive` is the lowest score of its positives, `never` the places that are positives or the query itself.
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
    drop("rank", rank < rules.first)
    if rules.max_score is not None:
        drop("max_score", scores > rules.max_score)
    if rules.min_score is not None:
        drop("min_score", scores < rules.min_score)
    if rules.absolute_margin is not None:
        drop("absolute_margin", scores > positive - rules.absolute_margin)
    if rules.relative_margin is not None:
        drop("relative_margin", scores > positive - rules.relative_margin * abs(positive))
    fit = np.flatnonzero(left)
    if rules.pick == "top" or len(fit) <= rules.negatives:
        chosen = fit[: rules.negatives]
    else:
        random = np.random.default_rng([rules.seed, number])  # of the example alone: its place among others counts, not theirs
        chosen = np.sort(random.choice(fit, rules.negatives, replace=False))
    dropped["not_needed"] += len(fit) - len(chosen)
    return Choice(chosen, +dropped)
