"""A batch is a pure function of its number: seed and step decide every example, text and token, on every host."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import grain
import numpy as np

from e5jax.config import Training
from e5jax.data.mixture import Draws, make_draws, mixture_of, open_sets
from e5jax.data.source import ExampleSource
from e5jax.errors import ConfigError
from e5jax.mixture import Dataset, Mixture
from e5jax.packing import Layout, deal, layout, pack
from e5jax.records import Batch, Example, Ids
from e5jax.tokens import TextTokenizer

SHOWN = 5


class Taken(NamedTuple):
    """An example of a batch: one positive and the hard negatives chosen, and the set it is of."""

    example: Example
    task: str  # empty: none
    dataset: Dataset  # with all its fields, see `complete`


class Assembly(NamedTuple):
    """From a step to its batch. A value, so that it can be sent to other processes."""

    draws: Draws
    datasets: tuple[Dataset, ...]  # of `draws.names`, with all their fields: see `complete`
    sources: tuple[ExampleSource, ...]
    tokenizer: TextTokenizer
    layout: Layout
    seed: int
    instructions: bool

    def __call__(self, step: int) -> Batch:
        taken = list(self.take(step))
        ids = encode(taken, self.tokenizer)
        refuse_alone([one.example for one in taken], ids)
        return self.pack(ids)

    def pack(self, examples: Sequence[Ids]) -> Batch:
        """Deals examples to the shards and lays them out."""
        lengths = np.array([len(one.query) + sum(map(len, one.passages)) for one in examples])
        return pack([examples[i] for i in deal(lengths, self.layout.shards)], self.layout)

    def take(self, step: int) -> Iterator[Taken]:
        """The examples of a step, set by set."""
        drawn, random = self.draws(step), np.random.default_rng([self.seed, step])
        for number, row in zip(drawn.sets.tolist(), drawn.rows.tolist(), strict=True):
            dataset, example = self.datasets[number], self.sources[number][row]
            task = dataset.instructions[row % len(dataset.instructions)] if dataset.instructions else example.instruction
            yield Taken(choose(example, dataset.negatives or 0, random), task if self.instructions else "", dataset)


def assembly(mixture: Mixture, sources: Mapping[str, ExampleSource], tokenizer: TextTokenizer, run: Training) -> Assembly:
    """What makes the batches of a run."""
    draws = make_draws(mixture, {name: len(source) for name, source in sources.items()}, run.batch.queries, run.seed)
    datasets = tuple(complete(mixture.datasets[name], run) for name in draws.names)
    opened = tuple(sources[name] for name in draws.names)
    return Assembly(draws, datasets, opened, tokenizer, layout(run.batch, run.tokens.limit), run.seed, run.data.instructions)


def make_batches(assemble: Assembly) -> grain.MapDataset[Batch]:
    """`batches[step]`, endless: a batch is its number alone, so any of them can be made at any time, in any process."""
    return grain.MapDataset.range(sys.maxsize).map(assemble)


def batches_of(files: Sequence[str | Path], tokenizer: TextTokenizer, run: Training) -> grain.MapDataset[Batch]:
    """The batches of a run on these files as its only set."""
    mixture = mixture_of(run, files)
    return make_batches(assembly(mixture, open_sets(mixture), tokenizer, run))


def complete(dataset: Dataset, run: Training) -> Dataset:
    """The set with what it leaves to the run."""
    limit, negatives, temperature = run.tokens.limit, run.batch.negatives, run.loss.temperature
    return replace(
        dataset,
        query_tokens=limit if dataset.query_tokens is None else dataset.query_tokens,
        passage_tokens=limit if dataset.passage_tokens is None else dataset.passage_tokens,
        negatives=negatives if dataset.negatives is None else dataset.negatives,
        temperature=temperature if dataset.temperature is None else dataset.temperature,
    )


def choose(example: Example, negatives: int, random: np.random.Generator) -> Example:
    """One positive and at most so many hard negatives; where there is no choice nothing is drawn."""
    count = len(example.positives)
    positive = int(random.integers(count)) if count > 1 else 0
    count = len(example.negatives)
    chosen = random.permutation(count)[:negatives].tolist() if negatives and count > 1 else range(min(negatives, count))
    return example.only([positive], chosen)


def encode(taken: Sequence[Taken], tokenizer: TextTokenizer) -> list[Ids]:
    """Token ids of all texts, in one call that uses every core."""
    texts, limits, put = [], [], tokenizer.templates.put
    for example, task, dataset in taken:
        passages = (*example.positives, *example.negatives)
        texts += [put(example.query, task), *(put(text, task if dataset.symmetric else None) for text in passages)]
        limits += [dataset.query_tokens, *[dataset.passage_tokens] * len(passages)]
    ids = iter(tokenizer(texts, limits))
    return [
        Ids(next(ids), list(islice(ids, 1 + len(one.example.negatives))), one.dataset.temperature or 0.0, one.dataset.in_batch)
        for one in taken
    ]


def refuse_alone(examples: Sequence[Example], ids: Sequence[Ids]) -> None:
    """Raises ConfigError for a batch in which a query has no negative: its loss would be 0 whatever its vector."""
    others = len(ids) > 1
    alone = [e for e, one in zip(examples, ids, strict=True) if len(one.passages) == 1 and not (one.in_batch and others)]
    if alone:
        named = ", ".join(f"{e.id!r} (source {e.source!r})" for e in alone[:SHOWN])
        raise ConfigError(
            f"{len(alone)} of the {len(ids)} queries of a batch have no negative, the first are {named}; give them hard negatives, "
            "or in-batch negatives and a batch of at least 2"
        )
