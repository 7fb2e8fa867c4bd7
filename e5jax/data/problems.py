"""Everything that is wrong with training files, line by line: what training would refuse on opening them, and nothing left out."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from e5jax.config import Config
from e5jax.data.convert import Counts
from e5jax.data.source import expand, problem_of
from e5jax.data.texts import printable
from e5jax.errors import ConfigError


class Wanted(NamedTuple):
    """Files that are read together, and the hard negatives that each of their examples must have."""

    files: Sequence[Path]
    negatives: int


def wanted_of(config: Config) -> Iterator[Wanted]:
    """What each training run of a configuration reads. Raises ConfigError for files that are not there."""
    for at, run in [("config", config), *([("config.pretrain", config.pretrain)] if config.pretrain else [])]:
        if not run.data.files:
            raise ConfigError(f"{at}.data.harvest makes the data of this run; name the train.jsonl that it made with --input")
        yield Wanted(expand(run.data.files, f"{at}.data.files"), run.batch.negatives)


def report_problems(wanted: Sequence[Wanted], report: Callable[[str], object]) -> Counts:
    """Reports each problem as one printable line, `file:line: reason`; counts lines that are examples, and the others by reason."""
    examples = 0
    rejected: Counter[str] = Counter()
    for part in wanted:
        lines = 0
        for where, line in _lines(part.files):
            lines += 1
            if problem := problem_of(line, where, part.negatives):
                report(printable(problem))
                rejected[printable(problem.removeprefix(f"{where}: ").partition(":")[0])] += 1
            else:
                examples += 1
        if not lines:
            report(f"{part.files[0]}:1: no examples, neither in this file nor in another of these")
            rejected["no examples"] += 1
    return Counts(examples, rejected)


def _lines(paths: Sequence[Path]) -> Iterator[tuple[str, bytes]]:
    """Lines with their places."""
    for path in paths:
        with path.open("rb") as file:
            for number, line in enumerate(tqdm(file, desc=path.name, unit=" lines", disable=None), 1):
                yield f"{path}:{number}", line
