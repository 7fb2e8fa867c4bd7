"""Two MinHash libraries beside each other: time, error of the estimate, pairs proposed, on 50,000 real texts.

.venv/bin/python benchmarks/minhash.py [--data=runs/quickstart/data] [--texts=50000] [--output=FILE]

Both get the shingles, number of permutations and bands of `e5jax.datasets.minhash`; datasketch a fast hash instead of SHA-1.
"""

import argparse
import json
import random
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
from datasketch import MinHash, MinHashLSH
from decontamination import real_texts
from rensa import RMinHash, RMinHashLSH

from e5jax.datasets.minhash import BANDS, ROWS, THRESHOLD
from e5jax.datasets.normalise import read, shingles


def main() -> None:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--data", type=Path, default=Path("runs/quickstart/data"))
    options.add_argument("--texts", type=int, default=50_000)
    options.add_argument("--output", type=Path)
    args = options.parse_args()
    rows = libraries(list(islice(real_texts(args.data), args.texts)))
    if args.output:
        args.output.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


def libraries(texts: list[str]) -> list[dict]:
    """A row for each library."""
    sets = [parts for text in texts if (parts := list(shingles(read(text).words)))]
    coded = [[part.encode() for part in parts] for parts in sets]
    size = BANDS * ROWS
    return [
        compared(
            "rensa",
            sets,
            lambda: RMinHash.from_token_sets(sets, size, 1),
            RMinHashLSH(THRESHOLD, size, BANDS),
        ),
        compared(
            "datasketch",
            sets,
            lambda: list(MinHash.generator(coded, num_perm=size, hashfunc=crc32)),
            MinHashLSH(num_perm=size, params=(BANDS, ROWS)),
        ),
    ]


def compared(name: str, sets: list[list[str]], make: Callable[[], list], index: Any) -> dict:
    """Time, the error of estimates against exact similarities, and pairs at or above the threshold that were proposed."""
    start = time.process_time()
    sketches = make()
    middle = time.process_time()
    pairs = []
    for number, one in enumerate(sketches):
        pairs += [(number, other) for other in index.query(one)]
        index.insert(number, one)
    end = time.process_time()
    chosen = random.Random(2).sample(pairs, min(len(pairs), 20_000))
    exact = np.array(
        [len({*sets[i]} & {*sets[j]}) / len({*sets[i]} | {*sets[j]}) for i, j in chosen]
    )
    error = np.array([sketches[i].jaccard(sketches[j]) for i, j in chosen]) - exact
    row = {
        "library": name,
        "sketch_cpu_seconds": middle - start,
        "index_cpu_seconds": end - middle,
        "candidate_pairs": len(pairs),
        "pairs_at_threshold": round(len(pairs) * float(np.mean(exact >= THRESHOLD))),
        "root_mean_square_error": float(np.sqrt(np.mean(error**2))),
    }
    print(
        ", ".join(
            f"{key} {value:.3g}" if isinstance(value, float) else f"{key} {value}"
            for key, value in row.items()
        )
    )
    return row


if __name__ == "__main__":
    main()
