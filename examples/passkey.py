"""Personalized passkey retrieval (arXiv 2401.00368, section 5.2): does a vector hold one line of a long text?

    python -m examples.passkey --lengths=256,4096 --examples=12000 --output=data/passkey

Each document states one person's pass key somewhere among filler, and each query asks for one by
name. For each length it writes a folder in BEIR layout, and for the shortest one training records
with other names.
"""

import argparse
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, cycle, islice, product
from pathlib import Path
from typing import NamedTuple

import numpy as np

from e5jax.data.records import Example
from e5jax.data.tokenizer import TextTokenizer, read_tokenizer, train_tokenizer
from e5jax.errors import REPORTED, ConfigError, report
from e5jax.workdir.directory import atomic_output, writing

COMMAND = "examples.passkey"
TASK = "Given a question about a person, retrieve the text that answers it"
FILLER = (
    "The grass is green.",
    "The sky is blue.",
    "The sun is yellow.",
    "Here we go.",
    "There and back again.",
)
VOCABULARY = 1_024  # size of a new tokenizer
PARTS = 100  # number of first names, and of last names
SHORTEST = 64  # tokens
_BOS, _EOS = 1, 2  # of a new tokenizer, as in Mistral's


class Plan(NamedTuple):
    """Number and length of the texts."""

    lengths: Sequence[int]  # tokens per document, BOS and EOS included
    queries: int = 50
    documents: int = 100
    examples: int = 0  # training records of the shortest length
    seed: int = 0


def main(argv: Sequence[str]) -> int:
    """Parses the command line and writes the folders; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m examples.passkey", description="Writes passkey retrieval tasks."
    )
    add = parser.add_argument
    add("--lengths", required=True, metavar="N,M", help="tokens per document: 256,4096,32768")
    add("--output", type=Path, required=True, metavar="DIR", help="folder for passkey-N/")
    add(
        "--tokenizer", type=Path, metavar="FILE", help="tokenizer.json or its folder (default: new)"
    )
    for name, default, about in [
        ("queries", 50, "queries per length"),
        ("documents", 100, "documents per length"),
        ("examples", 0, "training records of the shortest length"),
        ("seed", 0, "seed of names, keys and positions"),
    ]:
        help_text = f"{about} (default: %(default)s)"
        add(f"--{name}", type=int, default=default, metavar="N", help=help_text)
    args = parser.parse_args(argv)
    try:
        parts = [part for part in args.lengths.split(",") if part]
        if not all(part.isdecimal() for part in parts):
            raise ConfigError(f"--lengths={args.lengths}: must be integers, separated by commas")
        lengths = [int(part) for part in parts]
        tokenizer = args.tokenizer
        if tokenizer and tokenizer.is_dir():
            tokenizer = tokenizer / "tokenizer.json"
        plan = Plan(lengths, args.queries, args.documents, args.examples, args.seed)
        write_passkey(plan, tokenizer, args.output)
    except REPORTED as error:
        return report(error)
    for length in lengths:
        print(f"task: {args.output / f'passkey-{length}'}")
    return 0


def write_passkey(plan: Plan, tokenizer: Path | None, output: Path) -> None:
    """Writes `passkey-LENGTH/` for each length and `tokenizer.json`, atomically.

    Args:
        plan: number and length of the texts.
        tokenizer: tokenizer.json that counts the tokens; None trains a new one.
        output: folder; only an earlier output is replaced.

    Raises:
        ConfigError: a number is out of range.

    """
    _check(plan)
    with writing(COMMAND, output, folder=True, inputs=[tokenizer] if tokenizer else []):
        people = names(plan.seed)
        tested, trained = people[: plan.documents], people[plan.documents :]
        backend = (
            read_tokenizer(tokenizer)
            if tokenizer
            else train_tokenizer(_vocabulary(people), VOCABULARY)
        )
        counter = TextTokenizer(backend, _BOS, _EOS, max(plan.lengths), str(tokenizer or output))
        with atomic_output(output, COMMAND) as folder:
            for length in plan.lengths:
                writer = _Writer(counter, length, np.random.default_rng([plan.seed, length]))
                writer.write(folder / f"passkey-{length}", tested, trained, plan)
            backend.save(str(folder / "tokenizer.json"))


def names(seed: int) -> list[str]:
    """All combinations of `PARTS` first and last names, shuffled."""
    random = np.random.default_rng(seed)
    syllables = ["".join(pair) for pair in product("bdfgklmnprstvz", "aeiou")]
    first, last = set[str](), set[str]()
    for parts, count in ((first, 2), (last, 3)):
        while len(parts) < PARTS:
            parts.add("".join(random.choice(syllables, count)).capitalize())
    people = [f"{one} {other}" for one, other in product(sorted(first), sorted(last))]
    random.shuffle(people)
    return people


def question(name: str) -> str:
    """The query for a person's pass key."""
    return f"what is the pass key for {name}?"


def needle(name: str, key: int) -> str:
    """The line that answers the query."""
    return f"{name}'s pass key is {key}. Remember it. {key} is the pass key for {name}."


class _Writer:
    """Writes the task of one length."""

    def __init__(self, counter: TextTokenizer, length: int, random: np.random.Generator) -> None:
        self._counter, self._length, self._random = counter, length, random

    def write(
        self, folder: Path, tested: Sequence[str], trained: Sequence[str], plan: Plan
    ) -> None:
        (folder / "qrels").mkdir(parents=True)
        queries = list(enumerate(tested))[: plan.queries]
        corpus = (
            _json(_id=f"d{i}", title="", text=self.document(name)) for i, name in enumerate(tested)
        )
        _write(folder / "corpus.jsonl", corpus)
        _write(
            folder / "queries.jsonl",
            (_json(_id=f"q{i}", text=question(name)) for i, name in queries),
        )
        qrels = (f"q{i}\td{i}\t1" for i, _ in queries)
        _write(folder / "qrels" / "test.tsv", ("query-id\tcorpus-id\tscore", *qrels))
        task = _json(instruction=TASK, limit=self._length, score="ndcg_at_1")
        _write(folder / "task.json", [task])
        if plan.examples and self._length == min(plan.lengths):
            examples = (self._example(i, trained).to_json() for i in range(plan.examples))
            _write(folder / "train.jsonl", examples)

    def document(self, name: str) -> str:
        """The needle at a random position among as many sentences as fit."""
        line = needle(name, int(self._random.integers(10_000, 100_000)))
        room = self._length - self._counter.count([line])[0]
        # Tokens of neighboring sentences may merge, so this is an estimate from above.
        tokens_per_round = self._counter.count([" ".join(FILLER)])[0] - 2
        sentences = max(0, room * len(FILLER) // tokens_per_round)
        position = float(self._random.random())
        while True:
            text = _around(line, sentences, position)
            tokens = self._counter.count([text])[0]
            if tokens <= self._length:
                return text
            if not sentences:
                raise ConfigError(
                    f"--lengths: {self._length} is too short: a pass key alone has {tokens} tokens"
                )
            sentences -= 1

    def _example(self, number: int, trained: Sequence[str]) -> Example:
        name = trained[int(self._random.integers(len(trained)))]
        return Example(
            f"passkey-{self._length}-{number}",
            question(name),
            (self.document(name),),
            instruction=TASK,
            source="passkey",
        )


def _around(line: str, sentences: int, position: float) -> str:
    filler = list(islice(cycle(FILLER), sentences))
    before = int(position * (sentences + 1))
    return " ".join([*filler[:before], line, *filler[before:]])


def _vocabulary(people: Sequence[str]) -> Iterator[str]:
    """Texts that contain every word of a task."""
    yield from chain(FILLER, [TASK], (f"{question(name)} {needle(name, 12345)}" for name in people))


def _check(plan: Plan) -> None:
    lengths = plan.lengths
    if not lengths or min(lengths) < SHORTEST or len(set(lengths)) < len(lengths):
        raise ConfigError(
            f"--lengths={','.join(map(str, lengths))}: must be different numbers of tokens, "
            f"each at least {SHORTEST}"
        )
    if not 1 <= plan.queries <= plan.documents < PARTS**2:
        raise ConfigError(
            f"--queries={plan.queries} and --documents={plan.documents}: needs "
            f"1 <= queries <= documents < {PARTS**2:,}, the number of names"
        )
    if plan.examples < 0:
        raise ConfigError(f"--examples={plan.examples}: must be at least 0")


def _json(**values: object) -> str:
    return json.dumps(values, ensure_ascii=False)


def _write(path: Path, lines: Iterable[str]) -> None:
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(f"{line}\n" for line in lines)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
