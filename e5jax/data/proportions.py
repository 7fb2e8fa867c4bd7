"""How many examples of each set a run takes: the files of a configuration are opened and counted, nothing is trained."""

import json
import math
from pathlib import Path
from typing import NamedTuple

from e5jax.config import Training
from e5jax.data.mixing import make_sampler, mixture_of, open_sets, weights_of


class Proportion(NamedTuple):
    """What a run is expected to take from one set."""

    name: str
    examples: int  # in its files
    share: float  # of all draws
    epoch: (
        int | None
    )  # examples that an epoch of the mixture takes; None where shares are not ratios
    batch: float  # queries of a batch
    run: int  # draws of the whole run
    epochs: float  # how often the run goes through the set


def proportions(run: Training, files: tuple[str | Path, ...] = ()) -> list[Proportion]:
    """One a set, in the configuration's order. Raises ConfigError for a mixture that cannot be trained on."""
    mixture = mixture_of(run, files)
    sizes = {name: len(source) for name, source in open_sets(mixture, run).items()}
    queries, steps = run.batch.queries, run.optim.steps
    make_sampler(mixture, sizes, queries, run.seed)  # refuses what cannot be drawn
    weights = weights_of(mixture, sizes)
    whole = sum(weights.values())
    return [
        Proportion(
            name=name,
            examples=size,
            share=weights[name] / whole,
            epoch=weights[name] if mixture.shares == "ratio" else None,
            batch=queries * weights[name] / whole,
            run=round(queries * steps * weights[name] / whole),
            epochs=queries * steps * weights[name] / whole / size,
        )
        for name, size in sizes.items()
    ]


def table(found: list[Proportion], run: Training) -> str:
    """For a terminal."""
    wide = max(len("all"), *(len(one.name) for one in found))
    lines = [
        f"{'set':<{wide}}  {'examples':>11}  {'share':>7}  {'an epoch':>11}  {'a batch':>8}  {'the run':>11}  {'epochs':>8}"
    ]
    lines += [
        f"{one.name:<{wide}}  {one.examples:>11,}  {one.share:>7.2%}  {'' if one.epoch is None else f'{one.epoch:,}':>11}  "
        f"{one.batch:>8.1f}  {one.run:>11,}  {one.epochs:>8.2f}"
        for one in found
    ]
    epoch = sum(one.epoch or 0 for one in found)
    examples, taken = sum(one.examples for one in found), run.batch.queries * run.optim.steps
    lines.append(
        f"{'all':<{wide}}  {examples:>11,}  {1:>7.2%}  {f'{epoch:,}' if epoch else '':>11}  {run.batch.queries:>8.1f}  {taken:>11,}"
    )
    if epoch:
        steps = math.ceil(epoch / run.batch.queries)
        lines.append(
            f"an epoch is {epoch:,} examples, {steps:,} steps; the run has {run.optim.steps:,}"
        )
    return "\n".join(lines)


def as_json(found: list[Proportion]) -> str:
    """One object a line."""
    return "\n".join(json.dumps(one._asdict()) for one in found)
