"""Keeps examples apart: exact and near duplicates, and answers that a model gives again and again."""

from collections import Counter
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Self

from e5jax.data.records import Example
from e5jax.datasets.minhash import NearIndex, sketch
from e5jax.datasets.normalise import read
from e5jax.synth.config import Checks
from e5jax.synth.families import Family
from e5jax.synth.reasons import UnfitError

LOOKED_AT = 1_000  # characters: texts that begin alike are duplicates


class Distinct:
    """What has been kept so far. Use with `with`: the indexes hold temporary files.

    Two examples of a family are duplicates if they have one of its `fresh` parts in common. Texts of one index are those of
    one family and part.
    """

    def __init__(self, rules: Checks, counts: Mapping[str, int]):
        self._rules = rules
        self._counts = counts
        self._open = ExitStack()
        self._indexes: dict[tuple[str, str], NearIndex] = {}
        self._answers: Counter[tuple[str, bytes]] = Counter()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def add(self, family: Family, example: Example) -> None:
        """Keeps the example, or raises UnfitError and keeps nothing of it."""
        sketches = {}
        for part in family.fresh:
            text = example.query if part == "query" else example.positives[0]
            sketches[part] = sketch(read(text[:LOOKED_AT]))
            if found := self._index(family, part).find(sketches[part]):
                reason = "duplicate" if found.equal else "near-duplicate"
                raise UnfitError(
                    reason, f"the {part} is {found.similarity:.2f} equal to an earlier one"
                )
        answer = family.name, read(example.positives[0][:LOOKED_AT]).key
        most = max(self._rules.answers, int(self._rules.answer_share * self._counts[family.name]))
        if self._answers[answer] >= most:
            raise UnfitError("frequent-answer", f"{most} examples have this positive already")
        self._answers[answer] += 1
        for part, found in sketches.items():
            self._index(family, part).add(found)

    def _index(self, family: Family, part: str) -> NearIndex:
        key = family.name, part
        if key not in self._indexes:
            self._indexes[key] = self._open.enter_context(NearIndex(self._rules.near))
        return self._indexes[key]
