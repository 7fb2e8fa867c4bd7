"""A batch is a pure function of its number: seed and step decide every example, text and token, on every host."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import grain
import numpy as np
from jaxtyping import Bool, Int

from e5jax.config import Training
from e5jax.config.mixture import Dataset, Mixture
from e5jax.data.mixing import Sampler, make_sampler, mixture_of, open_sets
from e5jax.data.packing import Layout, deal, layout, pack
from e5jax.data.records import Batch, Example, Ids
from e5jax.data.source import ExampleSource
from e5jax.data.tokenizer import TextTokenizer
from e5jax.errors import ConfigError

SHOWN = 5


class Selected(NamedTuple):
    """An example of a batch: the positives and the hard negatives chosen, and the set it is of."""

    example: Example
    task: str  # empty: none
    dataset: Dataset  # with all its fields, see `fill_defaults`


class BatchBuilder(NamedTuple):
    """From a step to its batch. A value, so that it can be sent to other processes."""

    draws: Sampler
    datasets: tuple[Dataset, ...]  # of `draws.names`, with all their fields: see `fill_defaults`
    sources: tuple[ExampleSource, ...]
    tokenizer: TextTokenizer
    layout: Layout
    seed: int
    instructions: bool
    masked: bool  # duplicates are no negatives

    def __call__(self, step: int) -> Batch:
        taken = list(self.take(step))
        ids = encode(taken, self.tokenizer)
        order = deal(
            np.array([len(one.query) + sum(map(len, one.passages)) for one in ids]),
            self.layout.shards,
        )
        batch = pack([ids[i] for i in order], self.layout)
        refuse_alone(
            batch, [taken[i].example for i in order], self.layout.positives, masked=self.masked
        )
        return batch

    def take(self, step: int) -> Iterator[Selected]:
        """The examples of a step, set by set."""
        drawn, random = self.draws(step), np.random.default_rng([self.seed, step])
        for number, row in zip(drawn.sets.tolist(), drawn.rows.tolist(), strict=True):
            dataset, example = self.datasets[number], self.sources[number][row]
            task = (
                dataset.instructions[row % len(dataset.instructions)]
                if dataset.instructions
                else example.instruction
            )
            chosen = choose(example, dataset.positives or 1, dataset.negatives or 0, random)
            yield Selected(chosen, task if self.instructions else "", dataset)


def batch_builder(
    mixture: Mixture, sources: Mapping[str, ExampleSource], tokenizer: TextTokenizer, run: Training
) -> BatchBuilder:
    """What makes the batches of a run."""
    draws = make_sampler(
        mixture,
        {name: len(source) for name, source in sources.items()},
        run.batch.queries,
        run.seed,
    )
    datasets = tuple(fill_defaults(mixture.datasets[name], run) for name in draws.names)
    opened, to = tuple(sources[name] for name in draws.names), layout(run.batch, run.tokens.limit)
    return BatchBuilder(
        draws,
        datasets,
        opened,
        tokenizer,
        to,
        run.seed,
        run.data.instructions,
        run.loss.mask_duplicates,
    )


def make_batches(assemble: BatchBuilder) -> grain.MapDataset[Batch]:
    """`batches[step]`, endless: a batch is its number alone, so any of them can be made at any time, in any process."""
    return grain.MapDataset.range(sys.maxsize).map(assemble)


def batches_of(
    files: Sequence[str | Path], tokenizer: TextTokenizer, run: Training
) -> grain.MapDataset[Batch]:
    """The batches of a run on these files as its only set."""
    mixture = mixture_of(run, files)
    return make_batches(batch_builder(mixture, open_sets(mixture, run), tokenizer, run))


def fill_defaults(dataset: Dataset, run: Training) -> Dataset:
    """The set with what it leaves to the run."""
    limit, batch, temperature = run.tokens.limit, run.batch, run.loss.temperature
    return replace(
        dataset,
        query_tokens=limit if dataset.query_tokens is None else dataset.query_tokens,
        passage_tokens=limit if dataset.passage_tokens is None else dataset.passage_tokens,
        positives=batch.positives if dataset.positives is None else dataset.positives,
        negatives=batch.negatives if dataset.negatives is None else dataset.negatives,
        temperature=temperature if dataset.temperature is None else dataset.temperature,
    )


def choose(
    example: Example, positives: int, negatives: int, random: np.random.Generator
) -> Example:
    """At most so many positives and hard negatives; where there is no choice nothing is drawn."""
    count = len(example.positives)
    chosen = (
        [int(random.integers(count))] if positives == 1 < count else _some(count, positives, random)
    )
    return example.only(chosen, _some(len(example.negatives), negatives, random))


def _some(count: int, most: int, random: np.random.Generator) -> Sequence[int]:
    return (
        random.permutation(count)[:most].tolist() if most and count > 1 else range(min(most, count))
    )


def encode(taken: Sequence[Selected], tokenizer: TextTokenizer) -> list[Ids]:
    """Token ids of all texts, in one call that uses every core."""
    texts, limits, put = [], [], tokenizer.templates.put
    for example, task, dataset in taken:
        passages = (*example.positives, *example.negatives)
        texts += [
            put(example.query, task),
            *(put(text, task if dataset.symmetric else None) for text in passages),
        ]
        limits += [dataset.query_tokens, *[dataset.passage_tokens] * len(passages)]
    ids = iter(tokenizer(texts, limits))
    return [
        Ids(
            next(ids),
            list(islice(ids, len(one.example.positives) + len(one.example.negatives))),
            one.dataset.temperature or 0.0,
            one.dataset.in_batch,
            len(one.example.positives),
            (one.example.query, *one.example.positives, *one.example.negatives),
        )
        for one in taken
    ]


def refuse_alone(
    batch: Batch, examples: Sequence[Example], positives: int, *, masked: bool
) -> None:
    """Raises ConfigError for a batch in which a query has no negative: its loss would be the same whatever its vector."""
    found = np.flatnonzero(alone(batch, positives, masked=masked)).tolist()
    if found:
        named = ", ".join(
            f"{examples[i].id!r} (source {examples[i].source!r})" for i in found[:SHOWN]
        )
        why = ", config.loss.mask_duplicates leaving out texts like their own" if masked else ""
        raise ConfigError(
            f"{len(found)} of the {len(examples)} queries of a batch have no negative{why}, the first are {named}; give them hard "
            "negatives, or in-batch negatives and a batch of at least 2 different pairs"
        )


def alone(batch: Batch, positives: int, *, masked: bool) -> Bool[np.ndarray, " queries"]:
    """Which have no negative, by the rule of `learner.candidates` but for scores.

    Who has none among the passages has none among the queries: in no direction of the loss.
    """
    queries = np.asarray(batch.query_texts).reshape(-1, 1)
    passages = np.asarray(batch.passage_texts).reshape(len(queries), -1)
    own, hard = passages[:, :positives], passages[:, positives:]
    mine = (
        np.concatenate([queries, np.where(own < 0, queries, own)], axis=1)
        if masked
        else np.empty((len(queries), 0), np.int32)
    )
    partner = np.where(np.arange(passages.shape[1]) < positives, queries, -1)
    some = np.any((hard >= 0) & np.all(hard[:, :, None] != mine[:, None], axis=-1), axis=1)
    return ~(some | np.asarray(batch.in_batch).ravel() & _others(passages, partner, mine))


def _others(
    passages: Int[np.ndarray, "q p"], partner: Int[np.ndarray, "q p"], mine: Int[np.ndarray, "q m"]
) -> Bool[np.ndarray, " q"]:
    """Which queries have a passage of others that is none of their own texts and belongs to none."""
    there = passages >= 0
    near = np.bincount(
        np.concatenate([passages[there], partner[there & (partner >= 0)]])
    )  # passages of that text or partner
    found = near[mine].sum(axis=1) < there.sum() - there.sum(
        axis=1
    )  # fewer are left out than there are: all but always
    for i in np.flatnonzero(~found):
        free = there & ~np.isin(passages, mine[i]) & ~np.isin(partner, mine[i])
        free[i] = False
        found[i] = free.any()
    return found
