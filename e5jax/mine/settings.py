"""Rules for mined negatives, checked before a model is loaded."""

import dataclasses
import math
from dataclasses import dataclass
from typing import Annotated, Literal, NamedTuple, get_args

from e5jax.config.options import Help
from e5jax.errors import ConfigError

Pick = Literal["top", "random"]
Short = Literal["drop", "keep"]


class Bounds(NamedTuple):
    """Limits of a negative's score."""

    min_score: float | None
    max_score: float | None
    absolute_margin: float | None
    relative_margin: float | None


@dataclass(frozen=True)
class Mining:
    """Rules for the negatives of a query.

    Ranks start at 1, after excluding positives and the query itself. Margins are relative to the
    lowest score of the record's positives. The teacher's rules apply to the scores of `scores`, in
    addition to the rules for the model's own scores.
    """

    negatives: Annotated[int, Help("negatives per record", "N")] = 1
    first: Annotated[int, Help("best rank of a negative; positives have no rank", "N")] = 1
    last: Annotated[int, Help("worst rank of a negative", "N")] = 100
    absolute_margin: Annotated[
        float | None, Help("minimum by which every positive outscores a negative", "X")
    ] = None
    # NV-Retriever's TopK-PercPos at 95 % is a relative margin of 0.05.
    relative_margin: Annotated[
        float | None, Help("the same as a share of the positive's score; 0.05: at most 95 %%", "X")
    ] = None
    min_score: Annotated[float | None, Help("lowest score of a negative", "X")] = None
    max_score: Annotated[float | None, Help("highest score of a negative", "X")] = None
    scores: Annotated[
        str | None, Help("a teacher's scores of pairs, JSONL; see docs/mining.md", "FILE")
    ] = None
    teacher_absolute_margin: Annotated[
        float | None, Help("absolute margin of the teacher's scores", "X")
    ] = None
    teacher_relative_margin: Annotated[
        float | None, Help("relative margin of the teacher's scores", "X")
    ] = None
    teacher_min_score: Annotated[
        float | None, Help("lowest score of a negative by the teacher", "X")
    ] = None
    teacher_max_score: Annotated[
        float | None, Help("highest score of a negative by the teacher", "X")
    ] = None
    pick: Annotated[
        Pick, Help("top: the best ranks that pass all rules; random: any of them, by --seed")
    ] = "top"
    short: Annotated[Short, Help("what to do with a record that has too few negatives")] = "drop"
    seed: Annotated[int, Help("seed of --pick=random", "N")] = 0
    instruction: Annotated[
        str | None, Help("instruction of all queries (default: each record's); empty: none")
    ] = None
    shard: Annotated[int, Help("texts between two saves of vectors", "N")] = 16_384

    @property
    def bounds(self) -> Bounds:
        """Limits of the model's scores."""
        return Bounds(self.min_score, self.max_score, self.absolute_margin, self.relative_margin)

    @property
    def teacher_bounds(self) -> Bounds:
        """Limits of the teacher's scores."""
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
