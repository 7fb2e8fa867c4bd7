"""Share of computed tokens that are real, packed and padded, on the quickstart's pairs at up to 512 tokens a text.

.venv/bin/python benchmarks/packing.py [--data=runs/quickstart/data] [--batches=10] [--output=FILE]

The floor is one: every computed token real. `padded` is what a trainer computes that pads queries and passages of a batch
to the longest of their side; `grouped` the same after sorting all pairs by the length of their passage.
"""

import argparse
import json
from pathlib import Path

import numpy as np

from e5jax.config import Batch
from e5jax.data.packing import layout, pack
from e5jax.data.records import Ids
from e5jax.data.source import ExampleSource
from e5jax.data.tokenizer import TextTokenizer

LIMIT = 512
SETTINGS = [
    (64, 1),
    (64, 2),
    (64, 4),
    (128, 1),
    (128, 2),
    (128, 4),
    (128, 8),
    (512, 8),
]  # pairs a batch, rows a chunk


def main() -> None:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--data", type=Path, default=Path("runs/quickstart/data"))
    options.add_argument("--batches", type=int, default=10)
    options.add_argument("--output", type=Path)
    args = options.parse_args()
    source = ExampleSource([args.data / "train.jsonl"])
    tokenizer = TextTokenizer.from_file(args.data / "tokenizer.json", 1, 2, LIMIT)
    order = np.random.default_rng(0).permutation(len(source))[
        : args.batches * max(pairs for pairs, _ in SETTINGS)
    ]
    queries, passages = (
        tokenizer([source[i].query for i in order]),
        tokenizer([source[i].positives[0] for i in order]),
    )
    found = [measure(queries, passages, pairs, rows, args.batches) for pairs, rows in SETTINGS]
    print(f"{'pairs':>6}{'rows a chunk':>14}{'packed':>9}{'padded':>9}{'grouped':>9}")
    for one in found:
        shares = "".join(f"{one[name]:>9.1%}" for name in ("packed", "padded", "grouped"))
        print(f"{one['pairs']:>6}{one['rows_a_chunk']:>14}{shares}")
    if args.output:
        args.output.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


def measure(
    queries: list[list[int]], passages: list[list[int]], pairs: int, rows: int, batches: int
) -> dict[str, float]:
    """Real over computed tokens in these batches."""
    to = layout(Batch(queries=pairs, negatives=0, chunks=2 * pairs // rows, texts_a_row=64), LIMIT)
    count = pairs * batches
    lengths = np.array(
        [[len(q), len(p)] for q, p in zip(queries[:count], passages[:count], strict=True)]
    )
    computed = 0
    for i in range(0, count, pairs):
        texts = zip(queries[i : i + pairs], passages[i : i + pairs], strict=True)
        batch = pack([Ids(query, [passage], 1.0, True) for query, passage in texts], to)
        computed += int(np.any(batch.ends >= 0, axis=(1, 2)).sum()) * batch.tokens[0].size
    grouped = lengths[np.argsort(lengths[:, 1], kind="stable")]
    real = int(lengths.sum())
    return {
        "pairs": pairs,
        "rows_a_chunk": rows,
        "packed": real / computed,
        "padded": real / padded(lengths, pairs),
        "grouped": real / padded(grouped, pairs),
    }


def padded(lengths: np.ndarray, pairs: int) -> int:
    """Tokens when each side of a batch is as wide as its longest text."""
    return int(lengths.reshape(-1, pairs, 2).max(axis=1).sum() * pairs)


if __name__ == "__main__":
    main()
