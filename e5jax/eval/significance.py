"""Whether two systems differ by more than chance would: the paired bootstrap over queries (Efron; Sakai, SIGIR 2006)."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

RESAMPLES = 10_000
_AT_ONCE = 2_000_000  # numbers


class Difference(NamedTuple):
    """Mean of ours minus theirs over the queries, its 95 % interval, and how probable so large a one is where there is none."""

    queries: int
    mean: float
    low: float
    high: float
    p: float


def difference(
    ours: Mapping[str, float], theirs: Mapping[str, float], seed: int = 0
) -> Difference | None:
    """None where the two were not asked the same queries."""
    if not ours or ours.keys() != theirs.keys():
        return None
    differences = np.array([ours[query] - theirs[query] for query in sorted(ours)])
    means = _resampled(differences, np.random.default_rng(seed))
    low, high = np.quantile(means, [0.025, 0.975])
    # Both tails, and the sample itself is one of the resamples: never 0.
    tail = min(np.sum(means <= 0), np.sum(means >= 0))
    p = min(1.0, 2 * (float(tail) + 1) / (RESAMPLES + 1))
    return Difference(len(differences), float(differences.mean()), float(low), float(high), p)


def _resampled(values: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """The means of `RESAMPLES` samples of as many values, with replacement."""
    count = len(values)
    part = max(1, _AT_ONCE // count)
    starts = range(0, RESAMPLES, part)
    draws = (random.integers(0, count, (min(part, RESAMPLES - start), count)) for start in starts)
    return np.concatenate([values[drawn].mean(axis=1) for drawn in draws])
