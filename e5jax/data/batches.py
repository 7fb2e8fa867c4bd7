"""A batch is a pure function of its number: seed and step decide every example, text and token, on every host."""

from collections.abc import Sequence

import grain
import numpy as np

from e5jax.config import Training
from e5jax.data.source import ExampleSource
from e5jax.errors import ConfigError
from e5jax.packing import deal, layout, pack
from e5jax.records import Batch, Example
from e5jax.tokens import TextTokenizer, query_text


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
        chosen = random.choice(len(example.negatives), run.batch.negatives, replace=False) if run.batch.negatives else []
        return example.only([positive], [int(i) for i in chosen])

    def assemble(examples: Sequence[Example]) -> Batch:
        queries = tokenizer([query_text(e.query, e.instruction if run.data.instructions else None) for e in examples])
        passages = tokenizer([text for e in examples for text in (*e.positives, *e.negatives)])
        each = 1 + run.batch.negatives
        own = [passages[i * each : (i + 1) * each] for i in range(len(queries))]
        lengths = np.array([len(query) + sum(map(len, texts)) for query, texts in zip(queries, own, strict=True)])
        order = deal(lengths, run.batch.shards)
        return pack([queries[i] for i in order], [ids for i in order for ids in own[i]], layout(run.batch, run.tokens.limit))

    examples = grain.MapDataset.source(source).seed(run.seed).shuffle().random_map(choose)
    return examples.batch(run.batch.queries, drop_remainder=True, batch_fn=list).repeat().map(assemble)
