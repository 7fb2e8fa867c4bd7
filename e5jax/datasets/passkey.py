"""Personalised passkey retrieval (arXiv 2401.00368, section 5.2), made here: whether a vector holds one line of a long text.

A document of a given number of tokens says one person's pass key somewhere among filler; the query asks for it by name. Lengths
flow in, for each a folder in BEIR layout flows out, and training records whose names are others.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, cycle, islice, product
from pathlib import Path
from typing import NamedTuple

import numpy as np

from e5jax.data.records import Example
from e5jax.data.tokenizer import TextTokenizer, read_tokenizer
from e5jax.data.vocabulary import train_tokenizer
from e5jax.errors import ConfigError
from e5jax.workdir.directory import atomic_output, writing

TASK = "Given a question about a person, retrieve the text that answers it"
FILLER = (
    "The grass is green.",
    "The sky is blue.",
    "The sun is yellow.",
    "Here we go.",
    "There and back again.",
)
VOCABULARY = 1_024  # pieces of a tokenizer made here
PARTS = 100  # first names, and last names
SHORTEST = 64  # tokens
_BOS, _EOS = 1, 2  # of a tokenizer made here, as in Mistral's


class Plan(NamedTuple):
    """What is wanted."""

    lengths: Sequence[int]  # tokens of a document, BOS and EOS included
    queries: int = 50
    documents: int = 100
    examples: int = 0  # for training, of the shortest length
    seed: int = 0


def write_passkey(plan: Plan, tokenizer: Path | None, output: Path) -> None:
    """Writes `passkey-LENGTH/` for each length and `tokenizer.json`, all or nothing. Without a tokenizer one is made.

    Raises ConfigError naming option, value and fix.
    """
    _check(plan)
    with writing("data passkey", output, folder=True, inputs=[tokenizer] if tokenizer else []):
        _write_folder(plan, tokenizer, output)


def _write_folder(plan: Plan, tokenizer: Path | None, output: Path) -> None:
    every = names(plan.seed)
    tested, trained = every[: plan.documents], every[plan.documents :]
    read = read_tokenizer(tokenizer) if tokenizer else train_tokenizer(_words(every), VOCABULARY)
    counter = TextTokenizer(read, _BOS, _EOS, max(plan.lengths), str(tokenizer or output))
    with atomic_output(output, "data passkey") as folder:
        for length in plan.lengths:
            writer = _Writer(counter, length, np.random.default_rng([plan.seed, length]))
            writer.write(folder / f"passkey-{length}", tested, trained, plan)
        read.save(str(folder / "tokenizer.json"))


def names(seed: int) -> list[str]:
    """All names in any order: each of `PARTS` first names with each of as many last names."""
    draw = np.random.default_rng(seed)
    syllables = ["".join(pair) for pair in product("bdfgklmnprstvz", "aeiou")]
    first, last = set[str](), set[str]()
    for made, count in ((first, 2), (last, 3)):
        while len(made) < PARTS:
            made.add("".join(draw.choice(syllables, count)).capitalize())
    found = [f"{one} {other}" for one, other in product(sorted(first), sorted(last))]
    draw.shuffle(found)
    return found


def question(name: str) -> str:
    """What is asked."""
    return f"what is the pass key for {name}?"


def needle(name: str, key: int) -> str:
    """What answers it."""
    return f"{name}'s pass key is {key}. Remember it. {key} is the pass key for {name}."


class _Writer:
    """Documents of one length."""

    def __init__(self, counter: TextTokenizer, length: int, draw: np.random.Generator) -> None:
        self._counter, self._length, self._draw = counter, length, draw

    def write(
        self, folder: Path, tested: Sequence[str], trained: Sequence[str], plan: Plan
    ) -> None:
        (folder / "qrels").mkdir(parents=True)
        asked = list(enumerate(tested))[: plan.queries]
        _write(
            folder / "corpus.jsonl",
            (
                _json(_id=f"d{i}", title="", text=self.document(name))
                for i, name in enumerate(tested)
            ),
        )
        _write(
            folder / "queries.jsonl", (_json(_id=f"q{i}", text=question(name)) for i, name in asked)
        )
        _write(
            folder / "qrels" / "test.tsv",
            ("query-id\tcorpus-id\tscore", *(f"q{i}\td{i}\t1" for i, _ in asked)),
        )
        _write(
            folder / "task.json", [_json(instruction=TASK, limit=self._length, score="ndcg_at_1")]
        )
        if plan.examples and self._length == min(plan.lengths):
            _write(
                folder / "train.jsonl",
                (self._example(i, trained).to_json() for i in range(plan.examples)),
            )

    def document(self, name: str) -> str:
        """As many sentences as fit, the needle in a random place among them."""
        found = needle(name, int(self._draw.integers(10_000, 100_000)))
        room = self._length - self._counter.count([found])[0]
        one, many = (
            self._counter.count([" ".join(FILLER)])[0] - 2,
            len(FILLER),
        )  # pieces of neighbours may join: check below
        sentences = max(0, room * many // one)
        place = float(self._draw.random())
        while (
            tokens := self._counter.count([text := _around(found, sentences, place)])[0]
        ) > self._length:
            if not sentences:
                raise ConfigError(
                    f"--lengths: {self._length} is too short: a pass key alone is {tokens} tokens of this tokenizer"
                )
            sentences -= 1
        return text

    def _example(self, number: int, trained: Sequence[str]) -> Example:
        name = trained[int(self._draw.integers(len(trained)))]
        identity = f"passkey-{self._length}-{number}"
        return Example(
            identity, question(name), (self.document(name),), instruction=TASK, source="passkey"
        )


def _around(found: str, sentences: int, place: float) -> str:
    filler = list(islice(cycle(FILLER), sentences))
    before = int(place * (sentences + 1))
    return " ".join([*filler[:before], found, *filler[before:]])


def _words(every: Sequence[str]) -> Iterator[str]:
    """Texts that have every word of a task."""
    yield from chain(FILLER, [TASK], (f"{question(name)} {needle(name, 12345)}" for name in every))


def _check(plan: Plan) -> None:
    if (
        not plan.lengths
        or min(plan.lengths) < SHORTEST
        or len(set(plan.lengths)) < len(plan.lengths)
    ):
        said = ",".join(map(str, plan.lengths))
        raise ConfigError(
            f"--lengths={said}: must be different numbers of tokens, each at least {SHORTEST}"
        )
    if not 1 <= plan.queries <= plan.documents < PARTS**2:
        raise ConfigError(
            f"--queries={plan.queries} and --documents={plan.documents}: must be at least 1, no more queries than documents, "
            f"and fewer documents than there are names, {PARTS**2:,}"
        )
    if plan.examples < 0:
        raise ConfigError(f"--examples={plan.examples}: must be at least 0")


def _json(**values: object) -> str:
    return json.dumps(values, ensure_ascii=False)


def _write(path: Path, lines: Iterable[str]) -> None:
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(f"{line}\n" for line in lines)
