"""How much of a batch is text: all of it at worst, or what texts of given mean lengths leave of it when they are packed."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from e5jax.config import Batch
from e5jax.data.packing import deal, first_fit_decreasing, layout
from e5jax.errors import ConfigError

SPREAD = 0.7  # of the logarithm of a length: the middle two thirds of the texts are within a factor of two of the median


class Means(NamedTuple):
    """Mean tokens of a text, BOS, EOS and instruction included, before it is cut at the limit."""

    query: float
    passage: float


class Part(NamedTuple):
    """Chunks of one kind."""

    used: int  # hold text
    chunks: int


class Fill(NamedTuple):
    """What a step's cost follows. The parts are named as the scopes that they run in."""

    tokens: float
    squared_lengths: float
    kept: Part
    again: Part

    @property
    def shares(self) -> dict[str, float]:
        """Of each kind of chunk, those that hold text."""
        return {
            name: part.used / part.chunks
            for name, part in (("kept", self.kept), ("again", self.again))
            if part.chunks
        }


def full(batch: Batch, limit: int) -> Fill:
    """Every text is as long as it may be: the worst case."""
    return Fill(batch.texts * limit, batch.texts * limit**2, *_parts(batch, batch.chunks))


def expected(batch: Batch, limit: int, means: Means) -> Fill:
    """One batch of random lengths, log-normal, dealt to shards and packed as in training. The same on every call."""
    everything = np.concatenate(_draw(batch, limit, means)).astype(np.float64)
    used = -(-filled_rows(batch, limit, means) // rows_of_shard(batch, limit))
    return Fill(float(everything.sum()), float(np.square(everything).sum()), *_parts(batch, used))


def filled_rows(batch: Batch, limit: int, means: Means) -> int:
    """Rows with text in the fullest shard of the batch that is expected, however many chunks they are cut into."""
    queries, passages = _draw(batch, limit, means)
    own = passages.reshape(batch.queries, -1)
    order = deal(queries + own.sum(axis=1), batch.shards).reshape(batch.shards, -1)
    lengths = np.concatenate([queries[order], own[order].reshape(batch.shards, -1)], axis=1)
    shards = np.repeat(np.arange(batch.shards), lengths.shape[1])
    return 1 + int(
        first_fit_decreasing(lengths.ravel(), shards, batch.width(limit), batch.texts_a_row)[
            :, 0
        ].max()
    )


def rows_of_shard(batch: Batch, limit: int) -> int:
    """Rows of one shard in one chunk."""
    return layout(batch, limit).rows // batch.shards


def _parts(batch: Batch, used: int) -> tuple[Part, Part]:
    kept = 1 if batch.chunks == 1 else min(batch.kept_chunks, batch.chunks)  # as the step does it
    return Part(min(used, kept), kept), Part(max(used - kept, 0), batch.chunks - kept)


def parse_means(text: str) -> Means:
    """Reads `QUERY,PASSAGE`. Raises ConfigError for anything but two lengths that a text can have."""
    try:
        query, passage = (float(part) for part in text.split(","))
    except ValueError:
        query = passage = 0.0
    if not all(3 <= mean < float("inf") for mean in (query, passage)):
        raise ConfigError(
            f"--lengths={text}: wanted are two mean lengths of at least 3 tokens, as in --lengths=40,180"
        )
    return Means(query, passage)


def _draw(
    batch: Batch, limit: int, means: Means
) -> tuple[Int[np.ndarray, " q"], Int[np.ndarray, " p"]]:
    random = np.random.default_rng(0)

    def lengths(mean: float, count: int) -> Int[np.ndarray, " n"]:
        drawn = random.lognormal(np.log(mean) - SPREAD**2 / 2, SPREAD, count)
        return np.clip(np.rint(drawn).astype(np.int64), 3, limit)

    return lengths(means.query, batch.queries), lengths(means.passage, batch.texts - batch.queries)
