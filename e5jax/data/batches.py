"""A batch is a pure function of seed and step: its examples, texts and tokens, on every host."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import grain
import numpy as np
from jaxtyping import Bool, Int

from e5jax.config import Training
from e5jax.config.mixture import Dataset, Mixture
from e5jax.data.packing import Layout, deal, layout, pack
from e5jax.data.records import Batch, Example, Ids
from e5jax.data.sampler import Sampler, make_sampler, mixture_of, open_sets
from e5jax.data.source import ExampleSource
from e5jax.data.tokenizer import TextTokenizer
from e5jax.errors import ConfigError

SHOWN = 5  # queries in an error message
PAIRS = 4_000  # about so many are in a sample of lengths


class Selected(NamedTuple):
    """An example of a batch, with the positives and hard negatives chosen, and its set."""

    example: Example
    task: str  # empty: none
    dataset: Dataset  # complete (see `fill_defaults`)


class BatchBuilder(NamedTuple):
    """From a step to its batch. Picklable, so that it can be sent to other processes."""

    sampler: Sampler
    datasets: tuple[Dataset, ...]  # of `sampler.names`, complete (see `fill_defaults`)
    sources: tuple[ExampleSource, ...]
    tokenizer: TextTokenizer
    layout: Layout
    seed: int
    instructions: bool
    masked: bool  # duplicates are not negatives

    def __call__(self, step: int) -> Batch:
        selected = list(self.select(step))
        ids = encode(selected, self.tokenizer)
        lengths = np.array([len(one.query) + sum(map(len, one.passages)) for one in ids])
        order = deal(lengths, self.layout.shards)
        batch = pack([ids[i] for i in order], self.layout)
        examples = [selected[i].example for i in order]
        check_negatives(batch, examples, self.layout.positives, masked=self.masked)
        return batch

    def select(self, step: int) -> Iterator[Selected]:
        """Yields the examples of a step, set by set."""
        selection, random = self.sampler(step), np.random.default_rng([self.seed, step])
        for number, row in zip(selection.sets.tolist(), selection.rows.tolist(), strict=True):
            dataset, example = self.datasets[number], self.sources[number][row]
            tasks = dataset.instructions
            task = tasks[row % len(tasks)] if tasks else example.instruction
            chosen = choose(example, dataset.positives or 1, dataset.negatives or 0, random)
            yield Selected(chosen, task if self.instructions else "", dataset)


def batch_builder(
    mixture: Mixture, sources: Mapping[str, ExampleSource], tokenizer: TextTokenizer, run: Training
) -> BatchBuilder:
    """Returns what builds the batches of a run."""
    sizes = {name: len(source) for name, source in sources.items()}
    sampler = make_sampler(mixture, sizes, run.batch.queries, run.seed)
    return BatchBuilder(
        sampler,
        tuple(fill_defaults(mixture.datasets[name], run) for name in sampler.names),
        tuple(sources[name] for name in sampler.names),
        tokenizer,
        layout(run.batch, run.tokens.limit),
        run.seed,
        run.data.instructions,
        run.loss.mask_duplicates,
    )


def make_batches(builder: BatchBuilder) -> grain.MapDataset[Batch]:
    """Returns endless batches, `batches[step]`."""
    return grain.MapDataset.range(sys.maxsize).map(builder)


def batches_of(
    files: Sequence[str | Path], tokenizer: TextTokenizer, run: Training
) -> grain.MapDataset[Batch]:
    """Returns the batches of a run with these files as its only set."""
    mixture = mixture_of(run, files)
    return make_batches(batch_builder(mixture, open_sets(mixture, run), tokenizer, run))


def fill_defaults(dataset: Dataset, run: Training) -> Dataset:
    """Returns the set with the run's values for all fields that are None."""
    defaults = {
        "query_tokens": run.tokens.limit,
        "passage_tokens": run.tokens.limit,
        "positives": run.batch.positives,
        "negatives": run.batch.negatives,
        "temperature": run.loss.temperature,
    }
    values = asdict(dataset)
    missing = {name: value for name, value in defaults.items() if values[name] is None}
    return replace(dataset, **missing)


def choose(
    example: Example, positives: int, negatives: int, random: np.random.Generator
) -> Example:
    """Returns the example with at most so many positives and hard negatives.

    Draws no random number if there is no choice.
    """
    count = len(example.positives)
    draws_one = positives == 1 < count
    chosen = [int(random.integers(count))] if draws_one else _sample(count, positives, random)
    return example.select(chosen, _sample(len(example.negatives), negatives, random))


def _sample(count: int, most: int, random: np.random.Generator) -> Sequence[int]:
    if most and count > 1:
        return random.permutation(count)[:most].tolist()
    return range(min(most, count))


def encode(selected: Sequence[Selected], tokenizer: TextTokenizer) -> list[Ids]:
    """Returns the token ids of all texts, in one call that uses every core."""
    texts, limits, put = [], [], tokenizer.templates.put
    for example, task, dataset in selected:
        passages = (*example.positives, *example.negatives)
        side = task if dataset.symmetric else None
        texts += [put(example.query, task), *(put(text, side) for text in passages)]
        limits += [dataset.query_tokens, *[dataset.passage_tokens] * len(passages)]
    ids = iter(tokenizer(texts, limits))
    return [
        Ids(
            next(ids),
            list(islice(ids, len(example.positives) + len(example.negatives))),
            dataset.temperature or 0.0,
            dataset.in_batch,
            len(example.positives),
            (example.query, *example.positives, *example.negatives),
        )
        for example, _, dataset in selected
    ]


# --- queries without negatives -------------------------------------------------------------------


def check_negatives(
    batch: Batch, examples: Sequence[Example], positives: int, *, masked: bool
) -> None:
    """Raises ConfigError if a query has no negative: its loss would not depend on its vector."""
    alone = np.flatnonzero(without_negatives(batch, positives, masked=masked)).tolist()
    if alone:
        first = (examples[i] for i in alone[:SHOWN])
        names = ", ".join(f"{example.id!r} (source {example.source!r})" for example in first)
        why = ", config.loss.mask_duplicates leaving out texts like their own" if masked else ""
        raise ConfigError(
            f"{len(alone)} of the {len(examples)} queries of a batch have no negative{why}, the "
            f"first are {names}; give them hard negatives, or in-batch negatives and a batch of at "
            "least 2 different pairs"
        )


def without_negatives(
    batch: Batch, positives: int, *, masked: bool
) -> Bool[np.ndarray, " queries"]:
    """Returns which queries have no negative, by the rules of `train.negatives` except scores.

    A query without negatives among the passages has none among the queries either, and so in no
    direction of the loss.
    """
    queries = np.asarray(batch.query_texts).reshape(-1, 1)
    passages = np.asarray(batch.passage_texts).reshape(len(queries), -1)
    own, hard = passages[:, :positives], passages[:, positives:]
    equal = np.empty((len(queries), 0), np.int32)
    if masked:
        equal = np.concatenate([queries, np.where(own < 0, queries, own)], axis=1)
    partner = np.where(np.arange(passages.shape[1]) < positives, queries, -1)
    has_hard = np.any((hard >= 0) & np.all(hard[:, :, None] != equal[:, None], axis=-1), axis=1)
    return ~(has_hard | np.asarray(batch.in_batch).ravel() & _has_others(passages, partner, equal))


def _has_others(
    passages: Int[np.ndarray, "q p"], partner: Int[np.ndarray, "q p"], equal: Int[np.ndarray, "q m"]
) -> Bool[np.ndarray, " q"]:
    """Which queries have a passage of another query that is not masked, nor its partner."""
    exists = passages >= 0
    # Passages with that text or partner.
    count = np.bincount(np.concatenate([passages[exists], partner[exists & (partner >= 0)]]))
    # In nearly all cases fewer passages are masked than exist, and that is sufficient.
    has = count[equal].sum(axis=1) < exists.sum() - exists.sum(axis=1)
    for i in np.flatnonzero(~has):
        free = exists & ~np.isin(passages, equal[i]) & ~np.isin(partner, equal[i])
        free[i] = False
        has[i] = free.any()
    return has


# --- lengths -------------------------------------------------------------------------------------


class Lengths(NamedTuple):
    """Tokens of queries and positives, with instruction, before truncation."""

    queries: list[int]
    passages: list[int]


def sample_lengths(builder: BatchBuilder, steps: int, queries: int) -> Lengths:
    """Returns lengths from whole batches of `queries`, evenly spread over all steps."""
    count = min(steps, -(-PAIRS // queries))
    numbers = np.linspace(0, steps - 1, count, dtype=int).tolist()
    pairs = [pair for step in numbers for pair in builder.select(step)]
    put, tokenizer = builder.tokenizer.templates.put, builder.tokenizer
    sides = [pair.task if pair.dataset.symmetric else None for pair in pairs]
    positives = [pair.example.positives[0] for pair in pairs]
    return Lengths(
        tokenizer.count([put(pair.example.query, pair.task) for pair in pairs]),
        tokenizer.count([put(text, side) for text, side in zip(positives, sides, strict=True)]),
    )
