"""How many examples of each set a run takes; the files are opened and counted, nothing is trained."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from e5jax.config import Training
from e5jax.data.sampler import make_sampler, mixture_of, open_sets, weights_of


class Proportion(NamedTuple):
    """What a run is expected to take from one set."""

    name: str
    examples: int  # in its files
    share: float  # of all draws
    epoch: int | None  # examples per epoch of the mixture; None if shares are not ratios
    batch: float  # queries per batch
    run: int  # draws of the whole run
    epochs: float  # how often the run passes through the set


def proportions(run: Training, files: tuple[str | Path, ...] = ()) -> list[Proportion]:
    """Returns one for each set, in the order of the configuration.

    Raises ConfigError if the mixture cannot be trained on.
    """
    mixture = mixture_of(run, files)
    sizes = {name: len(source) for name, source in open_sets(mixture, run).items()}
    queries, steps = run.batch.queries, run.optim.steps
    make_sampler(mixture, sizes, queries, run.seed)  # raises if a set is too small
    weights = weights_of(mixture, sizes)
    total = sum(weights.values())
    return [
        Proportion(
            name=name,
            examples=size,
            share=weights[name] / total,
            epoch=weights[name] if mixture.shares == "ratio" else None,
            batch=queries * weights[name] / total,
            run=round(queries * steps * weights[name] / total),
            epochs=queries * steps * weights[name] / total / size,
        )
        for name, size in sizes.items()
    ]


def table(rows: Sequence[Proportion], run: Training) -> str:
    """Formats the proportions for a terminal, with their sum."""
    queries, steps = run.batch.queries, run.optim.steps
    examples, epoch = sum(row.examples for row in rows), sum(row.epoch or 0 for row in rows)
    total = Proportion("all", examples, 1, epoch or None, queries, queries * steps, math.nan)
    width = max(len(row.name) for row in (*rows, total))
    names = ("examples", "share", "an epoch", "a batch", "the run", "epochs")
    head = "{:>11}  {:>7}  {:>11}  {:>8}  {:>11}  {:>8}".format(*names)
    lines = [f"{'set':<{width}}  {head}"]
    for row in (*rows, total):
        whole = "" if row.epoch is None else f"{row.epoch:,}"
        text = f"{row.name:<{width}}  {row.examples:>11,}  {row.share:>7.2%}  {whole:>11}"
        epochs = "" if math.isnan(row.epochs) else f"  {row.epochs:>8.2f}"
        lines.append(f"{text}  {row.batch:>8.1f}  {row.run:>11,}{epochs}")
    if epoch:
        count = math.ceil(epoch / queries)
        lines.append(f"an epoch is {epoch:,} examples, {count:,} steps; the run has {steps:,}")
    return "\n".join(lines)


def as_json(rows: Sequence[Proportion]) -> str:
    """Formats each proportion as one JSON object per line."""
    return "\n".join(json.dumps(row._asdict()) for row in rows)
