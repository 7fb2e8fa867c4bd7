"""Any readable format to our JSONL: examples to one file, what was left out to another, and how much of each."""

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple, TextIO

from tqdm import tqdm

from e5jax.data.records import Example
from e5jax.datasets.example_texts import printable
from e5jax.datasets.readers.formats import AUTO, read
from e5jax.datasets.readers.result import OPTIONS, Options, Outcome, Rejected
from e5jax.errors import ConfigError
from e5jax.workdir.directory import atomic_output, writing


class Counts(NamedTuple):
    """What a conversion gave."""

    examples: int
    rejected: Counter[str]  # by kind of reason

    def __str__(self) -> str:
        lines = [f"{self.examples:,} examples, {self.rejected.total():,} rejected"]
        return "\n".join(
            [*lines, *(f"{count:>12,}  {kind}" for kind, count in self.rejected.most_common())]
        )


def convert(source: Path, output: Path, name: str = AUTO, options: Options = OPTIONS) -> Counts:
    """Writes `output` and, beside it, `rejects_of(output)` with one `file:line: reason` a line.

    Both are whole or not there. Raises ConfigError if there is not one example.
    """
    examples = 0
    rejected: Counter[str] = Counter()
    command = "data convert"
    with (
        writing(command, output, rejects_of(output), inputs=(source,)),
        atomic_output(rejects_of(output), command) as rejects,
        atomic_output(output, command) as made,
    ):
        with (
            made.open("w", encoding="utf-8", newline="\n") as good,
            rejects.open("w", encoding="utf-8", newline="\n") as bad,
        ):
            for example in accepted(read(source, name, options), bad, rejected, "convert"):
                good.write(example.to_json() + "\n")
                examples += 1
        if not examples:
            raise ConfigError(f"{source}: not one example; {Counts(0, rejected)}")
    return Counts(examples, rejected)


def accepted(
    outcomes: Iterable[Outcome], rejects: TextIO, rejected: Counter[str], name: str
) -> Iterator[Example]:
    """The examples, with a progress bar of that name; what is rejected is written and counted."""
    for outcome in tqdm(outcomes, desc=name, unit=" lines", disable=None):
        if isinstance(outcome, Rejected):
            rejects.write(printable(str(outcome)) + "\n")
            rejected[outcome.kind] += 1
        else:
            yield outcome


def rejects_of(output: Path) -> Path:
    """`train.jsonl` -> `train.rejects.txt`."""
    return output.with_suffix(".rejects.txt")
