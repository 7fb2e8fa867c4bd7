"""What is in training files: every line is counted, a sample is looked at closely. Files flow in, plain values flow out."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from e5jax.data.records import Example
from e5jax.datasets.counts import UNKNOWN
from e5jax.datasets.duplicates import Earlier
from e5jax.datasets.example_texts import PARTS, Part, Removed, texts_of
from e5jax.datasets.language import language_of
from e5jax.datasets.readers import native
from e5jax.datasets.readers.result import OPTIONS, Rejected

Measure = Callable[[Sequence[str]], Sequence[int]]  # lengths of texts
INSTRUCTIONS = (
    100_000  # different ones that are counted apart; generated data may bring one a record
)
OTHERS = "(instructions that were met later)"


class Source:
    """Counts of one source."""

    def __init__(self) -> None:
        self.records = self.positives = self.negatives = self.scored = 0
        self.languages = Counter[str]()

    def add(self, example: Example) -> None:
        self.records += 1
        self.positives += len(example.positives)
        self.negatives += len(example.negatives)
        self.scored += bool(example.positive_scores or example.negative_scores)
        self.languages[example.language or UNKNOWN] += 1


class Survey(NamedTuple):
    """All records are in `files`, `sources` and `instructions`; the rest is about `sample`."""

    files: dict[str, int]  # records
    rejected: dict[str, Counter[str]]  # by file, lines by kind of reason
    sources: dict[str, Source]
    instructions: dict[str, Counter[str]]  # by source
    sample: list[Example]
    lengths: dict[Part, list[int]]
    languages: Counter[str]  # found where the record names none
    duplicates: Counter[str] | None  # by reason; None where the sample is not everything

    @property
    def records(self) -> int:
        return sum(self.files.values())


def survey(files: Sequence[Path], measure: Measure, size: int, seed: int = 0) -> Survey:
    """Reads all files; `size` records at random are the sample."""
    counted: dict[str, int] = {}
    rejected: dict[str, Counter[str]] = {}
    sources: defaultdict[str, Source] = defaultdict(Source)
    instructions: defaultdict[str, Counter[str]] = defaultdict(Counter)

    def records() -> Iterator[Example]:
        for path in files:
            name = str(path)
            counted[name], rejected[name] = 0, Counter()
            for outcome in tqdm(
                native.read(path, OPTIONS), desc=path.name, unit=" lines", disable=None
            ):
                if isinstance(outcome, Rejected):
                    rejected[name][outcome.kind] += 1
                    continue
                counted[name] += 1
                source = outcome.source or UNKNOWN
                sources[source].add(outcome)
                counted_apart = (
                    outcome.instruction in instructions or len(instructions) < INSTRUCTIONS
                )
                instructions[outcome.instruction if counted_apart else OTHERS][source] += 1
                yield outcome

    sample = _sample(records(), size, np.random.default_rng(seed))
    texts = [(part, text) for example in sample for part, text in texts_of(example)]
    lengths: dict[Part, list[int]] = {
        part: list(measure([text for of, text in texts if of == part])) for part in PARTS
    }
    looked_at = tqdm(sample, desc="languages", unit=" records", disable=None)
    languages = Counter(
        language_of(example) or UNKNOWN for example in looked_at if not example.language
    )
    whole = len(sample) == sum(counted.values())
    return Survey(
        counted,
        rejected,
        dict(sources),
        dict(instructions),
        sample,
        lengths,
        languages,
        Counter(removed.reason for removed in _duplicates(sample)) if whole else None,
    )


def _sample(examples: Iterator[Example], size: int, chooser: np.random.Generator) -> list[Example]:
    """Each example is as likely as any other to be in it; they keep their order. Vitter's algorithm R."""
    held: list[tuple[int, Example]] = []
    for number, example in enumerate(examples):
        if number < size:
            held.append((number, example))
        elif (place := int(chooser.integers(number + 1))) < size:
            held[place] = number, example
    return [example for _, example in sorted(held, key=lambda pair: pair[0])]


def _duplicates(examples: Sequence[Example]) -> Iterator[Removed]:
    with Earlier() as earlier:
        for example in tqdm(examples, desc="duplicates", unit=" records", disable=None):
            if removed := earlier.add(example):
                yield removed
