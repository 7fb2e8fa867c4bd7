"""What packing makes of texts of given lengths, against batches that are really packed."""

import numpy as np
import pytest

from e5jax.config import Batch
from e5jax.data.packing import deal, layout, pack
from e5jax.data.records import Ids
from e5jax.errors import ConfigError
from e5jax.plan import fill
from e5jax.plan.fill import Means, Part, expected, full, parse_means

LIMIT = 64
BATCH = Batch(queries=64, negatives=1, chunks=12, kept_chunks=3, texts_a_row=6, shards=4)


def packed(batch: Batch, means: Means) -> tuple[int, int, float]:
    """(chunks with text, real tokens, their squared lengths) of the very batch that `expected` draws."""
    queries, passages = ([[1] * n for n in part] for part in fill._draw(batch, LIMIT, means))
    own = [passages[i * 2 : i * 2 + 2] for i in range(len(queries))]
    order = deal(
        np.array([len(q) + sum(map(len, o)) for q, o in zip(queries, own, strict=True)]),
        batch.shards,
    )
    made = pack([Ids(queries[i], own[i], 1.0, True) for i in order], layout(batch, LIMIT))
    lengths = (np.take_along_axis(made.positions, np.maximum(made.ends, 0), -1) + 1)[made.ends >= 0]
    return (
        int(np.any(made.ends >= 0, axis=(1, 2)).sum()),
        int((made.segments > 0).sum()),
        float(np.sum(lengths.astype(float) ** 2)),
    )


@pytest.mark.parametrize("means", [Means(5, 8), Means(10, 30), Means(60, 60)])
@pytest.mark.parametrize("shards", [1, 4])
@pytest.mark.parametrize("kept", [0, 3, 12])
def test_the_expected_batch_is_the_packed_one(means, shards, kept):
    batch = Batch(
        queries=64, negatives=1, chunks=12, kept_chunks=kept, texts_a_row=6, shards=shards
    )
    found, (used, tokens, squares) = expected(batch, LIMIT, means), packed(batch, means)
    assert (found.tokens, found.squared_lengths) == (tokens, squares)
    assert found.kept == Part(min(used, kept), kept)
    assert found.again == Part(max(used - kept, 0), 12 - kept)


def test_a_full_batch_has_text_everywhere():
    found = full(BATCH, LIMIT)
    assert found == (192 * LIMIT, 192 * LIMIT**2, (3, 3), (9, 9))
    assert found.shares == {"kept": 1.0, "again": 1.0}


def test_a_single_chunk_is_kept():
    found = full(Batch(queries=64, chunks=1), LIMIT)
    assert (found.kept, found.again) == ((1, 1), (0, 0))
    assert found.shares == {"kept": 1.0}


def test_means_of_lengths_are_those_asked_for():
    queries, passages = fill._draw(Batch(queries=20_000), 10_000, Means(40, 180))
    assert np.mean(queries) == pytest.approx(40, rel=0.02)
    assert np.mean(passages) == pytest.approx(180, rel=0.02)


@pytest.mark.parametrize("text", ["", "40", "40,180,3", "40,x", "2,180", "40,inf", "nan,40"])
def test_what_is_no_pair_of_lengths_is_refused(text):
    with pytest.raises(ConfigError, match="--lengths="):
        parse_means(text)


def test_a_pair_of_lengths_is_read():
    assert parse_means("40,180.5") == (40, 180.5)
