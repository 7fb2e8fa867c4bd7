"""What mining is asked for, checked before a model is read."""

import dataclasses
import math
from dataclasses import dataclass
from typing import Literal, get_args

from e5jax.errors import ConfigError

Pick = Literal["top", "random"]
Short = Literal["drop", "keep"]


@dataclass(frozen=True)
class Mining:
    """Rules for the negatives of a query. Ranks count from 1, once what may never be a negative is taken out.

    Margins refer to the lowest score among the record's positives: a negative is further from the query than all of them.
    """

    negatives: int = 1
    first: int = 1  # best rank that may be a negative
    last: int = 100
    absolute_margin: float | None = None  # score ≤ positive - margin
    relative_margin: float | None = None  # score ≤ positive - margin · |positive|; 0.05 is NV-Retriever's TopK-PercPos 95 %
    min_score: float | None = None
    max_score: float | None = None
    pick: Pick = "top"
    short: Short = "drop"  # what becomes of a record with fewer negatives than asked for
    seed: int = 0
    instruction: str | None = None  # None: each record's own
    shard: int = 16_384  # texts of a shard of vectors: the most that a killed run loses

    def __post_init__(self) -> None:
        """Raises ConfigError naming option, value and fix."""
        for name, least in {"negatives": 1, "first": 1, "shard": 1, "seed": 0}.items():
            if getattr(self, name) < least:
                raise ConfigError(f"--{name}={getattr(self, name)}: must be at least {least}")
        if self.last < self.first + self.negatives - 1:
            ranks = f"--first={self.first} --last={self.last}"
            raise ConfigError(f"{ranks}: fewer ranks than --negatives={self.negatives}; raise --last")
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            option = f"--{field.name.replace('_', '-')}={value}"
            if isinstance(value, float) and not math.isfinite(value):
                raise ConfigError(f"{option}: must be a number")
            if field.name.endswith("margin") and value is not None and value < 0:
                raise ConfigError(f"{option}: must be at least 0; a negative may not score above the positive")
        for name, value, known in [("pick", self.pick, Pick), ("short", self.short, Short)]:
            if value not in get_args(known):
                raise ConfigError(f"--{name}={value}: must be one of {', '.join(get_args(known))}")
        if self.min_score is not None and self.max_score is not None and self.min_score > self.max_score:
            raise ConfigError(f"--min-score={self.min_score}: is above --max-score={self.max_score}")
