"""Which examples a batch consists of: sizes of sets flow in, the rows of each step flow out.

The draws from a set are numbered over the whole run, and every `size` of them are an epoch of the
set (see `epochs`). No batch contains an example twice, nor do the draws of an epoch of the mixture
that takes only a part of the set. Nothing depends on hosts, workers or the step at which a run
resumes.

How many draws each set has given before a step is a pure function of the step. Draws come in units:
one draw, or a whole batch if a batch is from one set. `interleaved` splits the number of units
between two groups of sets by their weights, then within each group, down to single sets: there is
no state, and no set is ever more than a few draws from its share. `random` draws the units of a
batch.
"""

import heapq
import math
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from e5jax.config import Training
from e5jax.config.mixture import Dataset, Mixture
from e5jax.data.epochs import Epochs, Span, key
from e5jax.data.source import ExampleSource, Needs
from e5jax.errors import ConfigError

ALONE = "train"  # name of the set of a run that has only one
BLOCK = 1_024  # steps whose random counts are drawn at once
SIGMAS = 10  # standard deviations beyond which no count is expected

Counts = Callable[[int], Int[np.ndarray, " sets"]]  # draws from each set before a step


class Selection(NamedTuple):
    """The examples of a batch, set by set."""

    sets: Int[np.ndarray, " n"]  # into `Sampler.names`
    rows: Int[np.ndarray, " n"]


class Sampler(NamedTuple):
    """The examples of each step."""

    names: tuple[str, ...]
    epochs: tuple[Epochs, ...]
    counts: Counts

    def __call__(self, step: int) -> Selection:
        """Returns the examples of step `step`, counted from 0."""
        before, after = self.counts(step), self.counts(step + 1)
        sets = np.repeat(np.arange(len(self.names)), after - before)
        rows = [
            epochs.rows(np.arange(start, stop))
            for epochs, start, stop in zip(self.epochs, before, after, strict=True)
        ]
        return Selection(sets, np.concatenate(rows))


def mixture_of(run: Training, files: Sequence[str | Path] = ()) -> Mixture:
    """Returns the sets of a run: `files` as the only one if it has no mixture, or names files."""
    mixture = run.data.mixture
    if mixture.datasets and not run.data.files:
        return mixture
    return replace(mixture, datasets={ALONE: Dataset(files=tuple(map(str, files)))})


def needs_of(dataset: Dataset, run: Training) -> Needs:
    """Returns what each example of a set must have.

    That is `dataset.negatives` hard negatives, if set, and one if the batch brings no negatives.
    """
    drawn = run.batch.negatives if dataset.negatives is None else dataset.negatives
    alone = not dataset.in_batch or run.batch.queries == 1
    return Needs(
        dataset.negatives or 0, drawn if alone and drawn else None, run.loss.mask_duplicates
    )


def open_sets(mixture: Mixture, run: Training) -> dict[str, ExampleSource]:
    """Opens the files of all sets. Raises ConfigError if an example cannot be trained on."""
    sources = {}
    for name, dataset in mixture.datasets.items():
        try:
            sources[name] = ExampleSource(dataset.files, needs_of(dataset, run))
        except ConfigError as error:
            raise ConfigError(f"data.{name}: {error}") from error
    return sources


def make_sampler(mixture: Mixture, sizes: Mapping[str, int], queries: int, seed: int) -> Sampler:
    """Returns the sampler of a run. The order of the sets in the configuration has no effect."""
    names = tuple(sorted(sizes))
    weights = [weights_of(mixture, sizes)[name] for name in names]
    unit = queries if mixture.batches == "homogeneous" else 1
    units, forks, total = queries // unit, fork(weights), sum(weights)
    if mixture.order == "interleaved":
        bounds = upper_bounds(forks, units)
        most = [bounds[number] * unit for number in range(len(names))]
    else:
        most = [probable_bound(weight, total, units) * unit for weight in weights]
    limits = []
    for name, weight, bound in zip(names, weights, most, strict=True):
        size = sizes[name]
        _check_size(name, size, queries if unit > 1 else -(-queries * weight // total), queries)
        if mixture.order == "interleaved":
            _check_size(name, size, bound, queries)
        limits.append(min(bound, size // unit * unit))
    counts: Counts = Interleaved(forks, units, unit)
    if mixture.order == "random":
        counts = Random(weights, [limit // unit for limit in limits], units, unit, seed)
    epochs = []
    for number, (name, weight) in enumerate(zip(names, weights, strict=True)):
        # The whole of a set begins anew with an epoch of the mixture; there is one with ratios.
        part = weight if mixture.shares == "ratio" and weight < sizes[name] else 0
        spans = partial(spans_at, counts, number, queries * weight / total, part)
        epochs.append(Epochs(sizes[name], key(seed, name), spans))
    return Sampler(names, tuple(epochs), counts)


def spans_at(counts: Counts, number: int, rate: float, part: int, draw: int) -> list[Span]:
    """Returns what crosses the border of two epochs of set `number` before `draw`.

    That may be a batch, and the `part` of the set that an epoch of the mixture takes. `rate` is the
    mean number of draws from the set per step.
    """
    step = step_of(counts, number, draw, rate)
    pieces = [(int(counts(step)[number]), int(counts(step + 1)[number]))]
    if part:
        pieces.append((draw // part * part, draw // part * part + part))
    return [Span(stop - draw, draw - start) for start, stop in pieces if start < draw]


def _check_size(name: str, size: int, count: int, queries: int) -> None:
    if count > size:
        raise ConfigError(
            f"config.batch.queries={queries}: there are only {size} examples in {name}, and a "
            f"batch takes up to {count} of them; it must not contain one twice, so lower queries "
            "or the set's share, or bring more data"
        )


def weights_of(mixture: Mixture, sizes: Mapping[str, int]) -> dict[str, int]:
    """Returns how often each set is drawn from, in proportion.

    With `ratio` these are examples per epoch, else the shares as they are written.
    """
    datasets = mixture.datasets
    if mixture.shares == "ratio":
        return {name: max(1, round(datasets[name].ratio * size)) for name, size in sizes.items()}
    if mixture.shares == "weight":
        shares = {name: Fraction(repr(datasets[name].weight)) for name in sizes}
    else:
        shares = {name: Fraction(repr(size**mixture.alpha)) for name, size in sizes.items()}
    common = math.lcm(*(share.denominator for share in shares.values()))
    weights = {name: int(share * common) for name, share in shares.items()}
    return {name: weight // math.gcd(*weights.values()) for name, weight in weights.items()}


# --- interleaved ---------------------------------------------------------------------------------


class Fork(NamedTuple):
    """Two groups of sets and their weights; a group of one is the set's number."""

    left: "Fork | int"
    right: "Fork | int"
    part: int  # weight of the left group
    total: int  # of both


def fork(weights: Sequence[int]) -> Fork | int:
    """Builds Huffman's tree, which has heavy sets near the root.

    Each fork rounds, and few roundings then affect a large count.
    """
    heap: list[tuple[int, int, Fork | int]] = [
        (weight, number, number) for number, weight in enumerate(weights)
    ]
    heapq.heapify(heap)
    for number in range(len(weights), 2 * len(weights) - 1):
        (light, _, right), (heavy, _, left) = heapq.heappop(heap), heapq.heappop(heap)
        heapq.heappush(heap, (light + heavy, number, Fork(left, right, heavy, light + heavy)))
    return heap[0][2]


def split(
    node: Fork | int, units: int | Int[np.ndarray, " n"]
) -> dict[int, int | Int[np.ndarray, " n"]]:
    """Returns how many of the first `units` are from each set.

    One more unit is one more from exactly one set.
    """
    if isinstance(node, int):
        return {node: units}
    rounds, rest = units // node.total, units % node.total
    left = rounds * node.part + (2 * rest * node.part + node.total) // (2 * node.total)
    return split(node.left, left) | split(node.right, units - left)


def upper_bounds(node: Fork | int, units: int) -> dict[int, int]:
    """Returns the largest count of each set in any `units` consecutive units."""
    if isinstance(node, int):
        return {node: units}
    left, right = (-(-units * part // node.total) for part in (node.part, node.total - node.part))
    return upper_bounds(node.left, left) | upper_bounds(node.right, right)


def step_of(counts: Counts, number: int, draw: int, rate: float) -> int:
    """Returns the step that takes a draw of set `number`, which gives `rate` per step on average."""
    low, width = int(draw / rate), 1
    high = low + 1
    while counts(low)[number] > draw:
        low, width = max(0, low - width), 2 * width
    while counts(high)[number] <= draw:
        high, width = high + width, 2 * width
    return low + bisect_right(range(low, high), draw, key=lambda step: counts(step)[number]) - 1


class Interleaved(NamedTuple):
    """Spreads the draws of each set evenly over the run."""

    forks: Fork | int
    units: int  # per batch
    unit: int  # draws

    def __call__(self, step: int) -> Int[np.ndarray, " sets"]:
        counts = split(self.forks, step * self.units)
        return np.array([counts[number] for number in range(len(counts))], np.int64) * self.unit


# --- random --------------------------------------------------------------------------------------


class Random:
    """Draws the units of every batch by weight.

    A set gives at most its `limits` to a batch; the other sets give the rest.
    """

    def __init__(
        self, weights: Sequence[int], limits: Sequence[int], units: int, unit: int, seed: int
    ):
        self._shares = np.array(weights, np.float64) / math.fsum(weights)
        self._limits = np.array(limits, np.int64)
        self._units, self._unit, self._seed = units, unit, seed
        # Replaced as a whole: threads may compute them twice, and never see a part.
        zero = np.zeros(len(weights), np.int64)
        self._before: tuple[Int[np.ndarray, " sets"], ...] = (zero,)  # units before each block
        self._block: tuple[int, Int[np.ndarray, "steps sets"]] = (-1, zero[None])

    def __call__(self, step: int) -> Int[np.ndarray, " sets"]:
        number, rest = divmod(step, BLOCK)
        before = self._before
        while len(before) <= number:
            before = (*before, before[-1] + self._counts(len(before) - 1)[-1])
        block = self._block if self._block[0] == number else (number, self._counts(number))
        self._before, self._block = before, block
        return (before[number] + (block[1][rest - 1] if rest else 0)) * self._unit

    def _counts(self, block: int) -> Int[np.ndarray, "steps sets"]:
        """Units from each set since the block began, after each of its steps."""
        random = np.random.default_rng([self._seed, int(key("sets")), block])
        counts = random.multinomial(self._units, self._shares, BLOCK)
        for row in np.flatnonzero((counts > self._limits).any(axis=1)):
            counts[row] = self._within_limits(counts[row], random)
        return np.cumsum(counts, axis=0)

    def _within_limits(
        self, counts: Int[np.ndarray, " sets"], random: np.random.Generator
    ) -> Int[np.ndarray, " sets"]:
        while (excess := int(np.maximum(counts - self._limits, 0).sum())) > 0:
            counts = np.minimum(counts, self._limits)
            free = self._shares * (counts < self._limits)
            counts += random.multinomial(excess, free / free.sum())
        return counts


def probable_bound(weight: int, total: int, units: int) -> int:
    """Returns a count that `units` random draws exceed with negligible probability."""
    mean = units * weight / total
    return min(units, math.ceil(mean + SIGMAS * math.sqrt(mean) + SIGMAS))
