"""Several sets of training examples as one: what is trained on, in which shares and order. Checks values, opens no file."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from e5jax.config.types import above_zero, at_least
from e5jax.errors import ConfigError

Shares = Literal["ratio", "weight", "size"]
Order = Literal["interleaved", "random"]
Batches = Literal["mixed", "homogeneous"]

_NAME = re.compile(r"[a-z][a-z0-9_]*")


@dataclass(slots=True)
class Dataset:
    """One set of examples, and how it is trained on. None: as the run does it."""

    files: tuple[
        str, ...
    ] = ()  # JSONL of `records.Example`, or folders of prepared sets; glob patterns too
    ratio: float = 1.0  # of its examples that an epoch takes, with shares="ratio"
    weight: float = 1.0  # its share of the draws over the sum of all, with shares="weight"
    instructions: tuple[
        str, ...
    ] = ()  # bare tasks, in turn from example to example; empty: each example's own
    symmetric: bool = False  # True puts the instruction before passages too; the paper leaves all documents bare in training
    query_tokens: int | None = None  # at most, BOS and EOS included; None: tokens.limit
    passage_tokens: int | None = None
    negatives: int | None = (
        None  # hard ones that every example must have; None: those it has, at most batch.negatives
    )
    in_batch: bool = True  # False: a query is compared with its own passages alone
    temperature: float | None = None  # None: loss.temperature
    positives: int | None = None  # of an example, at most; None: batch.positives


@dataclass(slots=True)
class Mixture:
    """Sets by name. `shares` says how often each is drawn from, `order` when, `batches` whether a batch mixes them.

    `ratio`: as often as that part of its examples an epoch. `weight`: as told. `size`: as the number of its examples to the
    power of `alpha`; 1 is all examples alike, 0 all sets alike. Each set is gone through in epochs of its own: an example
    comes once in each, in a new order, and never twice in a batch.
    `interleaved`: the draws of a set are spread evenly. `random`: the set of each draw is drawn.
    `homogeneous`: all queries of a batch, over all devices, are of one set.
    """

    datasets: dict[str, Dataset] = field(default_factory=dict)
    shares: Shares = "ratio"
    alpha: float = 1.0
    order: Order = "interleaved"
    batches: Batches = "mixed"


def check_mixture(mixture: Mixture, limit: int, most: Mapping[str, int], at: str) -> None:
    """Ranges, with tokens.limit and the batch's `positives` and `negatives`, whose shapes bound what a set may ask for."""
    if not 0 <= mixture.alpha <= 1:
        raise ConfigError(f"{at}.alpha={mixture.alpha}: must be at least 0 and at most 1")
    for name, dataset in mixture.datasets.items():
        if not _NAME.fullmatch(name) or hasattr(
            dict, name
        ):  # an override finds the method of a dict before its key
            raise ConfigError(
                f"{at}.datasets has {name!r}: a name is small letters, digits and _, begins with a letter, and is no method of "
                "a dict; it is part of overrides and of checkpoints"
            )
        check_dataset(dataset, limit, most, f"{at}.datasets.{name}")


def check_dataset(dataset: Dataset, limit: int, most: Mapping[str, int], at: str) -> None:
    """Ranges of one set."""
    if not dataset.files:
        raise ConfigError(f"{at}.files is empty: name its JSONL files, or leave the set out")
    if not 0 < dataset.ratio <= 1:
        raise ConfigError(
            f"{at}.ratio={dataset.ratio}: must be above 0 and at most 1, the part of its examples that an epoch takes; "
            "to take a set more often than that use shares='weight'"
        )
    above_zero(f"{at}.weight", dataset.weight)
    if not all(task.strip() for task in dataset.instructions):
        raise ConfigError(f"{at}.instructions={dataset.instructions}: one is empty; leave it out")
    for name, value in [
        ("query_tokens", dataset.query_tokens),
        ("passage_tokens", dataset.passage_tokens),
    ]:
        if value is not None:
            at_least(f"{at}.{name}", value, 3)
            _at_most(f"{at}.{name}", value, "tokens.limit", limit)
    for name, value, least in [
        ("positives", dataset.positives, 1),
        ("negatives", dataset.negatives, 0),
    ]:
        if value is not None:
            at_least(f"{at}.{name}", value, least)
            _at_most(f"{at}.{name}", value, f"batch.{name}", most[name])
    if not dataset.in_batch and not (
        most["negatives"] if dataset.negatives is None else dataset.negatives
    ):
        raise ConfigError(
            f"{at}.in_batch=False with no hard negatives compares its queries with nothing; "
            f"raise {at}.negatives or batch.negatives, or set in_batch=True"
        )
    if dataset.temperature is not None:
        above_zero(f"{at}.temperature", dataset.temperature)


def _at_most(path: str, value: int, of: str, most: int) -> None:
    if value > most:
        raise ConfigError(f"{path}={value}: must be at most {of}={most}; lower it, or raise {of}")
