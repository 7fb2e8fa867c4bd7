"""Choices that a seed decides: the same in every run, on every machine, whatever was chosen before."""

import bisect
import hashlib
import itertools
import re
from collections.abc import Sequence
from random import Random
from typing import NamedTuple

_WEIGHTED = re.compile(r"(.*)=(\d+(?:\.\d+)?(?:e-?\d+)?)", re.DOTALL)


class Choices(NamedTuple):
    """Values and their running sums of weights."""

    values: tuple[str, ...]
    sums: tuple[float, ...]

    def pick(self, random: Random) -> str:
        """One of them, by weight."""
        return self.values[
            min(bisect.bisect(self.sums, random.random() * self.sums[-1]), len(self.values) - 1)
        ]

    def shares(self) -> dict[str, float]:
        """Each value's part of 1."""
        weights = (after - before for before, after in itertools.pairwise((0.0, *self.sums)))
        return {
            value: weight / self.sums[-1]
            for value, weight in zip(self.values, weights, strict=True)
        }

    def without(self, value: str) -> "Choices":
        """The others, weighted as before."""
        return weighted([(name, share) for name, share in self.shares().items() if name != value])


def weighted(pairs: Sequence[tuple[str, float]]) -> Choices:
    """Choices from values and weights. Raises ValueError without a weight above 0."""
    kept = [(value, weight) for value, weight in pairs if weight > 0]
    if not kept:
        raise ValueError("no value has a weight above 0")
    return Choices(
        tuple(value for value, _ in kept), tuple(itertools.accumulate(weight for _, weight in kept))
    )


def parse(texts: Sequence[str]) -> Choices:
    """Choices from `value=weight` or `value`. Raises ValueError."""
    pairs = [
        (found[1], float(found[2])) if (found := _WEIGHTED.fullmatch(text)) else (text, 1.0)
        for text in texts
    ]
    values = [value for value, _ in pairs]
    if twice := next((value for value in values if values.count(value) > 1), None):
        raise ValueError(f"{twice!r} occurs twice")
    if not all(value.strip() for value in values):
        raise ValueError("a value is blank")
    return weighted(pairs)


def seeded(*parts: object) -> Random:
    """A source of randomness that depends on these parts only."""
    text = "\0".join(map(str, parts)).encode()
    return Random(int.from_bytes(hashlib.blake2b(text, digest_size=16).digest(), "big"))  # noqa: S311  no secret is drawn


def apportion(total: int, shares: Sequence[float]) -> list[int]:
    """Splits `total` into whole numbers in proportion to the shares, by largest remainder."""
    exact = [total * share / sum(shares) for share in shares]
    counts = [int(part) for part in exact]
    order = sorted(range(len(exact)), key=lambda i: (counts[i] - exact[i], i))
    for i in order[: total - sum(counts)]:
        counts[i] += 1
    return counts
