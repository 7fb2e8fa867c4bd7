"""How long the texts are that a run trains on: a sample of its batches flows in, lengths in tokens flow out."""

from typing import NamedTuple

import numpy as np

from e5jax.data.batches import BatchBuilder

PAIRS = 4_000  # about as many are counted


class Lengths(NamedTuple):
    """Tokens of queries and of positives as the model reads them, instruction included, before they are cut at the limit."""

    queries: list[int]
    passages: list[int]


def sample_lengths(assembly: BatchBuilder, steps: int, queries: int) -> Lengths:
    """Lengths in whole batches of `queries`, spread over all steps: each set has the share that the run gives it."""
    count = min(steps, -(-PAIRS // queries))
    pairs = [
        pair
        for step in np.linspace(0, steps - 1, count, dtype=int).tolist()
        for pair in assembly.take(step)
    ]
    put = assembly.tokenizer.templates.put
    return Lengths(
        assembly.tokenizer.count([put(pair.example.query, pair.task) for pair in pairs]),
        assembly.tokenizer.count(
            [
                put(pair.example.positives[0], pair.task if pair.dataset.symmetric else None)
                for pair in pairs
            ]
        ),
    )
