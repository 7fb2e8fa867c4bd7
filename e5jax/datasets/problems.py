"""Everything that is wrong with training files, line by line: what training would refuse on opening them, and nothing left out."""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from e5jax.config import Config
from e5jax.data.sampler import mixture_of, needs_of
from e5jax.data.source import Needs, expand, open_parts, problem_of
from e5jax.datasets.convert import Counts
from e5jax.datasets.example_texts import printable
from e5jax.errors import ConfigError


class Wanted(NamedTuple):
    """Files that are read together, and what training needs of each of their examples."""

    files: Sequence[Path]
    needs: Needs


def wanted_of(config: Config) -> Iterator[Wanted]:
    """What each training run of a configuration reads, set by set. Raises ConfigError for files that are not there."""
    for at, run in [
        ("config", config),
        *([("config.pretrain", config.pretrain)] if config.pretrain else []),
    ]:
        if not (run.data.files or run.data.mixture.datasets):
            raise ConfigError(
                f"{at}.data.harvest makes the data of this run; name the train.jsonl that it made with --input"
            )
        for name, dataset in mixture_of(run, run.data.files).datasets.items():
            files = (
                f"{at}.data.files" if run.data.files else f"{at}.data.mixture.datasets.{name}.files"
            )
            yield Wanted(expand(dataset.files, files), needs_of(dataset, run))


def report_problems(wanted: Sequence[Wanted], report: Callable[[str], object]) -> Counts:
    """Reports each problem as one printable line, `file:line: reason`; counts lines that are examples, and the others by reason."""
    examples = 0
    rejected: Counter[str] = Counter()
    for part in wanted:
        found = 0
        for where, problem in _scan(part):
            found += 1
            if problem:
                report(printable(f"{where}: {problem}"))
                rejected[printable(problem.partition(":")[0])] += 1
            else:
                examples += 1
        if not found:
            report(f"{part.files[0]}:1: no examples, neither in this file nor in another of these")
            rejected["no examples"] += 1
    return Counts(examples, rejected)


def _scan(wanted: Wanted) -> Iterator[tuple[str, str | None]]:
    """The place of each line or record, and what is wrong with it, if anything."""
    for path, part in zip(wanted.files, open_parts(wanted.files), strict=True):
        for where, found in tqdm(
            part.scan(hashlib.sha256()), desc=path.name, unit=" examples", disable=None
        ):
            yield where, problem_of(found, wanted.needs)
