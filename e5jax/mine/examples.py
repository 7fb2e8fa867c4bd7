"""The records that are mined for: what is read of them, and how they are written with their negatives."""

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from e5jax.data.line_index import Lines
from e5jax.errors import ConfigError


class Asked(NamedTuple):
    """What mining needs of a record."""

    id: str
    query: str
    instruction: str
    positives: tuple[str, ...]
    negatives: tuple[str, ...]


class Examples:
    """The records of a JSONL file. All are checked on opening."""

    def __init__(self, path: Path):
        self._lines = Lines(path)
        for where, example in self._lines.scan(hashlib.sha256()):
            if isinstance(example, str):
                raise ConfigError(f"{where}: {example}")
        if not len(self._lines):
            raise ConfigError(f"--input={path}: no records in it")

    def __len__(self) -> int:
        return len(self._lines)

    def __iter__(self) -> Iterator[Asked]:
        return map(self.asked, range(len(self)))

    def asked(self, index: int) -> Asked:
        """What mining needs of one record."""
        example = self._lines[index]
        return Asked(
            example.id, example.query, example.instruction, example.positives, example.negatives
        )

    def mined(
        self,
        index: int,
        negatives: Sequence[str],
        positives: Float[np.ndarray, " p"],
        scores: Float[np.ndarray, " n"],
    ) -> str:
        """The record as one line, its negatives replaced, with the scores of its positives (all or none) and of these."""
        known = tuple(positives.tolist()) if np.isfinite(positives).all() else ()
        scored = {"positive_scores": known, "negative_scores": tuple(scores.tolist())}
        return self._lines[index]._replace(negatives=tuple(negatives), **scored).to_json()
