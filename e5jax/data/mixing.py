"""Which examples a batch is made of: sizes of sets flow in, for every step the rows of each set flow out.

The draws from a set are numbered over the whole run. Every `size` of them are an epoch of the set (`epochs`): each example once,
in a new order. No batch holds an example twice, nor do the draws of an epoch of the mixture that takes only a part of the set.
Nothing depends on hosts, workers or the step that a run resumes at.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from e5jax.config import Training
from e5jax.config.mixture import Dataset, Mixture
from e5jax.data.epochs import Epochs, Span
from e5jax.data.permutation import key
from e5jax.data.schedule import Given, Interleaved, Random, fork, most, probable_most, step_of
from e5jax.data.source import ExampleSource, Needs
from e5jax.errors import ConfigError

ALONE = "train"  # name of the set that is a run's only one


class Selection(NamedTuple):
    """What a batch is made of, set by set."""

    sets: Int[np.ndarray, " n"]  # into `Draws.names`
    rows: Int[np.ndarray, " n"]


class Sampler(NamedTuple):
    """What each step takes from each set."""

    names: tuple[str, ...]
    epochs: tuple[Epochs, ...]
    given: Given

    def __call__(self, step: int) -> Selection:
        """The examples of step `step`, counted from 0."""
        before, after = self.given(step), self.given(step + 1)
        sets = np.repeat(np.arange(len(self.names)), after - before)
        rows = [
            of.rows(np.arange(start, stop))
            for of, start, stop in zip(self.epochs, before, after, strict=True)
        ]
        return Selection(sets, np.concatenate(rows))


def spans(given: Given, number: int, rate: float, part: int, draw: int) -> list[Span]:
    """What lies across a border of epochs of a set: a batch, and a part of the set that an epoch of the mixture takes."""
    step = step_of(given, number, draw, rate)
    pieces = [(int(given(step)[number]), int(given(step + 1)[number]))]
    if part:
        pieces.append((draw // part * part, draw // part * part + part))
    return [Span(stop - draw, draw - start) for start, stop in pieces if start < draw]


def mixture_of(run: Training, files: Sequence[str | Path] = ()) -> Mixture:
    """The sets of a run: `files` as the only one where it has no mixture, or names files beside it."""
    own = run.data.mixture
    if own.datasets and not run.data.files:
        return own
    return replace(own, datasets={ALONE: Dataset(files=tuple(map(str, files)))})


def needs_of(dataset: Dataset, run: Training) -> Needs:
    """What each example of a set needs: `dataset.negatives` hard negatives, if set, and one where the batch brings none."""
    drawn = run.batch.negatives if dataset.negatives is None else dataset.negatives
    alone = not dataset.in_batch or run.batch.queries == 1
    return Needs(
        dataset.negatives or 0, drawn if alone and drawn else None, run.loss.mask_duplicates
    )


def open_sets(mixture: Mixture, run: Training) -> dict[str, ExampleSource]:
    """Opens the files of all sets. Raises ConfigError for an example that the run cannot be trained on."""
    sources = {}
    for name, dataset in mixture.datasets.items():
        needs = needs_of(dataset, run)
        try:
            sources[name] = ExampleSource(
                dataset.files, needs.negatives, needs.drawn, masked=needs.masked
            )
        except ConfigError as error:
            raise ConfigError(f"data.{name}: {error}") from error
    return sources


def make_sampler(mixture: Mixture, sizes: Mapping[str, int], queries: int, seed: int) -> Sampler:
    """The draws of a run. Sets go by their names: their order in the configuration changes nothing."""
    names = tuple(sorted(sizes))
    weights = [weights_of(mixture, sizes)[name] for name in names]
    unit = queries if mixture.batches == "homogeneous" else 1
    units, forks, whole = queries // unit, fork(weights), sum(weights)
    if mixture.order == "interleaved":
        bounds = most(forks, units)
        at_most = [bounds[number] * unit for number in range(len(names))]
    else:
        at_most = [probable_most(weight, whole, units) * unit for weight in weights]
    batch_takes = []
    for name, weight, takes in zip(names, weights, at_most, strict=True):
        size = sizes[name]
        _check_size(name, size, queries if unit > 1 else -(-queries * weight // whole), queries)
        if mixture.order == "interleaved":
            _check_size(name, size, takes, queries)
        batch_takes.append(min(takes, size // unit * unit))
    given: Given = Interleaved(forks, units, unit)
    if mixture.order == "random":
        given = Random(weights, [takes // unit for takes in batch_takes], units, unit, seed)
    epochs = []
    for number, (name, weight) in enumerate(zip(names, weights, strict=True)):
        # A set that an epoch of the mixture takes whole begins anew with it; shares that are not ratios have no such epoch.
        part = weight if mixture.shares == "ratio" and weight < sizes[name] else 0
        epochs.append(
            Epochs(
                sizes[name],
                key(seed, name),
                partial(spans, given, number, queries * weight / whole, part),
            )
        )
    return Sampler(names, tuple(epochs), given)


def _check_size(name: str, size: int, takes: int, queries: int) -> None:
    if takes > size:
        raise ConfigError(
            f"config.batch.queries={queries}: there are only {size} examples in {name}, and a batch takes up to {takes} of them; "
            "it must not hold one twice, so lower queries or the set's share, or bring more data"
        )


def weights_of(mixture: Mixture, sizes: Mapping[str, int]) -> dict[str, int]:
    """How often each set is drawn from, in proportion: examples an epoch with `ratio`, else the shares as they are written."""
    if mixture.shares == "ratio":
        return {
            name: max(1, round(mixture.datasets[name].ratio * size)) for name, size in sizes.items()
        }
    if mixture.shares == "weight":
        wanted = {name: Fraction(repr(mixture.datasets[name].weight)) for name in sizes}
    else:
        wanted = {name: Fraction(repr(size**mixture.alpha)) for name, size in sizes.items()}
    common = math.lcm(*(share.denominator for share in wanted.values()))
    weights = {name: int(share * common) for name, share in wanted.items()}
    return {name: weight // math.gcd(*weights.values()) for name, weight in weights.items()}
