"""What mining is asked for, checked before a model is read."""

import dataclasses
import math
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

from e5jax.errors import ConfigError

Pick = Literal["top", "random"]
Short = Literal["drop", "keep"]


class Bounds(NamedTuple):
    """What a negative's score is held to."""

    min_score: float | None
    max_score: float | None
    absolute_margin: float | None
    relative_margin: float | None


@dataclass(frozen=True)
class Mining:
    """Rules for the negatives of a query. Ranks count from 1, once what may never be a negative is taken out.

    Margins refer to the lowest score among the record's positives: a negative is further from the query than all of them.
    Rules of the teacher read the scores of a file; ranks are the model's, and its own rules hold beside the teacher's.
    """

    negatives: int = 1
    first: int = 1  # best rank that may be a negative
    last: int = 100
    absolute_margin: float | None = None  # score ≤ positive - margin
    relative_margin: float | None = (
        None  # score ≤ positive - margin · |positive|; 0.05 is NV-Retriever's TopK-PercPos 95 %
    )
    min_score: float | None = None
    max_score: float | None = None
    scores: str | None = None  # a teacher's, a file
    teacher_absolute_margin: float | None = None
    teacher_relative_margin: float | None = None
    teacher_min_score: float | None = None
    teacher_max_score: float | None = None
    pick: Pick = "top"
    short: Short = "drop"  # what becomes of a record with fewer negatives than asked for
    seed: int = 0
    instruction: str | None = None  # None: each record's own
    shard: int = 16_384  # texts of a shard of vectors: the most that a killed run loses

    @property
    def bounds(self) -> Bounds:
        """Of the model's scores."""
        return Bounds(self.min_score, self.max_score, self.absolute_margin, self.relative_margin)

    @property
    def teacher_bounds(self) -> Bounds:
        """Of the teacher's."""
        return Bounds(
            self.teacher_min_score,
            self.teacher_max_score,
            self.teacher_absolute_margin,
            self.teacher_relative_margin,
        )

    def __post_init__(self) -> None:
        """Raises ConfigError naming option, value and fix."""
        for name, least in {"negatives": 1, "first": 1, "shard": 1, "seed": 0}.items():
            if getattr(self, name) < least:
                raise ConfigError(f"--{name}={getattr(self, name)}: must be at least {least}")
        if self.last < self.first + self.negatives - 1:
            ranks = f"--first={self.first} --last={self.last}"
            raise ConfigError(
                f"{ranks}: fewer ranks than --negatives={self.negatives}; raise --last"
            )
        self._check_scores()
        for name, value, known in [("pick", self.pick, Pick), ("short", self.short, Short)]:
            if value not in get_args(known):
                raise ConfigError(f"--{name}={value}: must be one of {', '.join(get_args(known))}")

    def _check_scores(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            option = f"--{field.name.replace('_', '-')}={value}"
            if isinstance(value, float) and not math.isfinite(value):
                raise ConfigError(f"{option}: must be a number")
            if field.name.endswith("margin") and value is not None and value < 0:
                raise ConfigError(
                    f"{option}: must be at least 0; a negative may not score above the positive"
                )
            if field.name.startswith("teacher") and value is not None and self.scores is None:
                raise ConfigError(f"{option}: needs the teacher's scores, --scores=FILE")
        for prefix, (least, most, _, _) in [("", self.bounds), ("teacher-", self.teacher_bounds)]:
            if least is not None and most is not None and least > most:
                raise ConfigError(
                    f"--{prefix}min-score={least}: is above --{prefix}max-score={most}"
                )
