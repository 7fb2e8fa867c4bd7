"""Tokens a second of the bare `tokenizers` library beside ours, on the same texts and cores: what packing and reading add.

Command    python benchmarks/tokens.py --data runs/quickstart/data --output tokens.json
Peer       `Tokenizer.encode_batch` on the texts of whole batches, its threads on every core; nothing is kept but the ids
Ours       tokenise + pack: the same texts to packed batches, in this process; the whole: examples drawn and read as well, in a
           thread of this process, and in one process a core
Data       the quickstart's pairs, a function of another pair as the hard negative; Mistral's own 32,000 pieces

The runs take turns, and each counts its fastest turn: other work on the machine then slows both alike. With
TOKENIZERS_PARALLELISM=false the library uses one core, as in each worker process.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

sys.path.insert(
    0, str(Path(__file__).parent.parent)
)  # the tests' copy of Mistral's tokenizer, and workers that import this

from e5jax.config import Batch, Tokens, Training
from e5jax.data.batches import batch_builder, encode, make_batches
from e5jax.data.prefetch import Prefetcher
from e5jax.data.sampler import mixture_of, open_sets
from e5jax.data.source import ExampleSource
from e5jax.data.tokenizer import E5, TextTokenizer

ELSEWHERE = float("inf")
COLUMNS = {  # and how they are printed
    "run": "",
    "seconds": ".3f",
    "tokens_per_second": ",.0f",
    "of_encode_batch": ".0%",
    "cpu_seconds": ".3f",
    "cpu_of_encode_batch": ".0%",
}


def main() -> None:
    """Measures, prints a table, writes JSON."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument(
        "--data", type=Path, required=True, help="folder with train.jsonl of the harvest"
    )
    options.add_argument("--queries", type=int, default=2_048)
    options.add_argument("--batches", type=int, default=4)
    options.add_argument("--turns", type=int, default=3)
    options.add_argument("--output", type=Path)
    args = options.parse_args()
    from tests.data.test_tokenizer import mistral

    run = Training(
        batch=Batch(queries=args.queries, negatives=1, chunks=48, shards=16),
        tokens=Tokens(limit=512),
    )
    tokenizer = TextTokenizer(mistral(), 1, 2, run.tokens.limit)
    with tempfile.TemporaryDirectory() as folder:
        file = with_negatives(args.data / "train.jsonl", Path(folder))
        rows = measure(file, tokenizer, run, args.batches, args.turns)
    print(
        f"{os.cpu_count()} cores; {rows[0]['tokens']:,} tokens in {3 * args.queries * args.batches:,} texts"
    )
    print("".join(f"{name:<28}" for name in COLUMNS))
    for row in rows:
        shown = ("", ".3f", ",.0f", ".0%", ".3f", ".0%")
        print(
            "".join(
                f"{'' if row[name] is None else format(row[name], how):<28}"
                for name, how in zip(COLUMNS, shown, strict=True)
            )
        )
    if args.output:
        args.output.write_text(
            json.dumps({"cores": os.cpu_count(), "queries": args.queries, "rows": rows}, indent=2)
            + "\n"
        )


def with_negatives(path: Path, folder: Path) -> Path:
    """The examples, each with the positive of the one before as its hard negative."""
    source = ExampleSource([path])
    file = folder / "train.jsonl"
    with file.open("w", encoding="utf-8") as opened:
        for i in range(len(source)):
            opened.write(
                source[i]
                ._replace(negatives=source[i - 1 if i else len(source) - 1].positives)
                .to_json()
                + "\n"
            )
    return file


def measure(
    file: Path, tokenizer: TextTokenizer, run: Training, batches: int, turns: int
) -> list[dict]:
    """One row a run; each `batches` batches, the fastest of `turns`."""
    mixture = mixture_of(run, [file])
    whole = batch_builder(mixture, open_sets(mixture, run), tokenizer, run)
    made = make_batches(whole)
    taken = [list(whole.select(step)) for step in range(batches)]
    texts = [
        [
            text
            for e, task, _ in batch
            for text in (E5.put(e.query, task), *e.positives, *e.negatives)
        ]
        for batch in taken
    ]
    library = tokenizer.tokenizer
    tokens = sum(int((made[step].segments > 0).sum()) for step in range(batches))

    def processes() -> Took:
        cores = os.cpu_count() or 1
        count = cores * batches
        with Prefetcher(made, 0, count + 2 * cores, cores) as feed:
            for _ in range(2 * cores):  # until all have started
                next(feed)
            return Took(clock(lambda: [next(feed) for _ in range(count)]).wall / cores, ELSEWHERE)

    def bare() -> object:
        return [
            [found.ids for found in library.encode_batch(batch, add_special_tokens=False)]
            for batch in texts
        ]

    runs: dict[str, Callable[[], Took]] = {
        "encode_batch": lambda: clock(bare),
        "tokenise + pack": lambda: clock(
            lambda: [whole.pack(encode(batch, tokenizer)) for batch in taken]
        ),
        "the whole": lambda: clock(lambda: [made[step] for step in range(batches)]),
        "the whole, a process a core": processes,
    }
    found: dict[str, list[Took]] = {name: [] for name in runs}
    for _ in range(turns):
        for name, go in runs.items():
            found[name].append(go())
    best = {
        name: Took(min(took.wall for took in turn), min(took.cpu for took in turn))
        for name, turn in found.items()
    }
    peer = best["encode_batch"]
    return [
        {
            "run": name,
            "seconds": took.wall,
            "tokens": tokens,
            "tokens_per_second": tokens / took.wall,
            "of_encode_batch": peer.wall / took.wall,
            "cpu_seconds": None if took.cpu == ELSEWHERE else took.cpu,
            "cpu_of_encode_batch": None if took.cpu == ELSEWHERE else peer.cpu / took.cpu,
        }
        for name, took in best.items()
    ]


class Took(NamedTuple):
    """Seconds."""

    wall: float
    cpu: float  # ELSEWHERE: of other processes


def clock(work: Callable[[], object]) -> Took:
    """Seconds on the wall, and of this process on all cores."""
    start, used = time.perf_counter(), time.process_time()
    work()
    return Took(time.perf_counter() - start, time.process_time() - used)


if __name__ == "__main__":
    main()
