"""A batch is a pure function of its number: seed and step decide every example, text and token, on every host."""

from collections.abc import Sequence
from itertools import islice

import grain
import numpy as np

from e5jax.config import Training
from e5jax.data.source import ExampleSource
from e5jax.errors import ConfigError
from e5jax.packing import deal, layout, pack
from e5jax.records import Batch, Example, Ids
from e5jax.tokens import TextTokenizer, query_text

SHOWN = 5


def make_batches(source: ExampleSource, tokenizer: TextTokenizer, run: Training) -> grain.MapDataset[Batch]:
    """`batches[step]`, endless: each epoch is a new order of all examples, and its last, incomplete batch is left out.

    A batch over the border of two epochs could hold an example twice, and so a positive as a false negative.
    """
    if len(source) < run.batch.queries:
        raise ConfigError(
            f"config.batch.queries={run.batch.queries}: there are only {len(source)} examples; "
            "a batch must not hold one twice, so lower queries or bring more data"
        )

    def choose(example: Example, random: np.random.Generator) -> Example:
        positive = int(random.integers(len(example.positives))) if len(example.positives) > 1 else 0  # one alone draws nothing
        count = min(run.batch.negatives, len(example.negatives))
        chosen = random.choice(len(example.negatives), count, replace=False) if count else []
        return example.only([positive], [int(i) for i in chosen])

    def assemble(examples: Sequence[Example]) -> Batch:
        queries = tokenizer([query_text(e.query, e.instruction if run.data.instructions else None) for e in examples])
        passages = iter(tokenizer([text for e in examples for text in (*e.positives, *e.negatives)]))
        ids = [
            Ids(query, list(islice(passages, 1 + len(e.negatives))), run.loss.temperature, in_batch=True)
            for e, query in zip(examples, queries, strict=True)
        ]
        refuse_alone(examples, ids)
        lengths = np.array([len(one.query) + sum(map(len, one.passages)) for one in ids])
        return pack([ids[i] for i in deal(lengths, run.batch.shards)], layout(run.batch, run.tokens.limit))

    examples = grain.MapDataset.source(source).seed(run.seed).shuffle().random_map(choose)
    return examples.batch(run.batch.queries, drop_remainder=True, batch_fn=list).repeat().map(assemble)


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
