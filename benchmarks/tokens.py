"""Tokens a second of the bare `tokenizers` library beside ours, on the same texts and cores: what packing and reading add.

Command    python benchmarks/tokens.py --data runs/quickstart/data --output tokens.json
Peer       `Tokenizer.encode_batch` on the texts of whole batches, its threads on every core; nothing is kept but the ids
Ours       tokenise + pack: the same texts to packed batches, in this process; the whole: examples drawn and read as well, in a
           thread of this process, and in one process a core
Data       the quickstart's pairs, a function of another pair as the hard negative; Mistral's own 32,000 pieces

The runs take turns, and each counts its fastest turn: other work on the machine then slows both alike.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent))  # the tests' copy of Mistral's tokenizer, and workers that import this

from e5jax.config import Batch, Tokens, Training
from e5jax.data.batches import Assembly, batches_of, encode
from e5jax.data.feed import Feed
from e5jax.data.source import ExampleSource
from e5jax.packing import deal, pack
from e5jax.records import Ids
from e5jax.tokens import TextTokenizer, query_text

COLUMNS = ("run", "seconds", "tokens_per_second", "of_encode_batch")


def main() -> None:
    """Measures, prints a table, writes JSON."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--data", type=Path, required=True, help="folder with train.jsonl of the harvest")
    options.add_argument("--queries", type=int, default=2_048)
    options.add_argument("--batches", type=int, default=4)
    options.add_argument("--turns", type=int, default=3)
    options.add_argument("--output", type=Path)
    args = options.parse_args()
    from tests.test_tokens import mistral

    run = Training(batch=Batch(queries=args.queries, negatives=1, chunks=48, shards=16), tokens=Tokens(limit=512))
    tokenizer = TextTokenizer(mistral(), 1, 2, run.tokens.limit)
    with tempfile.TemporaryDirectory() as folder:
        file = with_negatives(args.data / "train.jsonl", Path(folder))
        rows = measure(file, tokenizer, run, args.batches, args.turns)
    print(f"{os.cpu_count()} cores; {rows[0]['tokens']:,} tokens in {3 * args.queries * args.batches:,} texts")
    print("".join(f"{name:<28}" for name in COLUMNS))
    for row in rows:
        print(f"{row['run']:<28}{row['seconds']:<28.3f}{row['tokens_per_second']:<28,.0f}{row['of_encode_batch']:<28.0%}")
    if args.output:
        args.output.write_text(json.dumps({"cores": os.cpu_count(), "queries": args.queries, "rows": rows}, indent=2) + "\n")


def with_negatives(path: Path, folder: Path) -> Path:
    """The examples, each with the positive of the one before as its hard negative."""
    source = ExampleSource([path], 0)
    file = folder / "train.jsonl"
    with file.open("w", encoding="utf-8") as opened:
        for i in range(len(source)):
            opened.write(source[i]._replace(negatives=source[i - 1 if i else len(source) - 1].positives).to_json() + "\n")
    return file


def measure(file: Path, tokenizer: TextTokenizer, run: Training, batches: int, turns: int) -> list[dict]:
    """One row a run; each `batches` batches, the fastest of `turns`."""
    made = batches_of([file], tokenizer, run)
    assembly = made._map_fn if hasattr(made, "_map_fn") else None  # the function that the batches are mapped by
    assert isinstance(assembly, Assembly)
    taken = [list(assembly.take(step)) for step in range(batches)]
    texts = [[text for e, task, _ in batch for text in (query_text(e.query, task), *e.positives, *e.negatives)] for batch in taken]
    bare = tokenizer.tokenizer
    tokens = sum(int((made[step].segments > 0).sum()) for step in range(batches))

    def peer() -> float:
        return clock(lambda: [[found.ids for found in bare.encode_batch(batch, add_special_tokens=False)] for batch in texts])

    def packing() -> float:
        return clock(lambda: [packed(encode(batch, tokenizer), assembly) for batch in taken])

    def thread() -> float:
        with Feed(made, 0, batches, 0) as feed:
            return clock(lambda: list(feed))

    def processes() -> float:
        cores = os.cpu_count() or 1
        count = cores * batches
        with Feed(made, 0, count + 2 * cores, cores) as feed:
            for _ in range(2 * cores):  # until all have started
                next(feed)
            return clock(lambda: [next(feed) for _ in range(count)]) / cores

    runs = {
        "encode_batch": peer,
        "tokenise + pack": packing,
        "the whole, a thread": thread,
        "the whole, a process a core": processes,
    }
    seconds = {
        name: min(found)
        for name, found in zip(runs, zip(*[[go() for go in runs.values()] for _ in range(turns)], strict=True), strict=True)
    }
    best = seconds["encode_batch"]
    return [
        {"run": name, "seconds": took, "tokens": tokens, "tokens_per_second": tokens / took, "of_encode_batch": best / took}
        for name, took in seconds.items()
    ]


def packed(ids: list[Ids], assembly: Assembly) -> object:
    lengths = np.array([len(one.query) + sum(map(len, one.passages)) for one in ids])
    return pack([ids[i] for i in deal(lengths, assembly.layout.shards)], assembly.layout)


def clock(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
