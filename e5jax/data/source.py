"""Random access to training examples, JSONL or prepared; all are checked on opening, not later."""

import glob
import hashlib
import operator
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, SupportsIndex

import numpy as np

from e5jax.data.files import check_records
from e5jax.data.line_index import Lines
from e5jax.data.prepared import Prepared, is_prepared
from e5jax.data.records import Example
from e5jax.errors import ConfigError

SHOWN = 5  # bad lines in an error message


class Needs(NamedTuple):
    """What training needs of every example of a set."""

    negatives: int = 0  # hard negatives, at least
    # Hard negatives that a batch takes for a query without other negatives; None: it has others.
    drawn: int | None = None
    masked: bool = False  # texts equal to the query or one of its positives are not negatives


NOTHING = Needs()


class ExampleSource:
    """The examples of JSONL files and prepared folders, in order.

    A `grain.sources.RandomAccessDataSource`. `files` may be glob patterns. Every example is read
    once, on opening, and checked against `needs`; then only offsets are in memory. Safe to read
    from many threads; a pickled copy opens the files again.
    """

    def __init__(self, files: Sequence[str | Path], needs: Needs = NOTHING):
        self._parts = open_parts(expand(files))
        self.fingerprint = _check(self._parts, needs)
        self._ends = np.cumsum([len(part) for part in self._parts])
        if not len(self):
            raise ConfigError(
                f"config.data.files: no examples in {', '.join(map(str, files)) or 'no files'}"
            )

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def __getitem__(self, index: SupportsIndex) -> Example:
        i = operator.index(index)
        if not 0 <= i < len(self):
            raise IndexError(f"example {i} of {len(self)}")
        number = int(np.searchsorted(self._ends, i, "right"))
        return self._parts[number][i - int(self._ends[number]) + len(self._parts[number])]

    def __repr__(self) -> str:
        return f"ExampleSource({len(self)} examples, fingerprint={self.fingerprint})"


def expand(files: Sequence[str | Path], field: str = "config.data.files") -> list[Path]:
    """Returns the paths that files, folders and glob patterns name, each once, patterns sorted.

    A folder is one that `e5jax data prepare` wrote, or contains one: `data/nq` is `data/nq/1.0.0`.
    Raises ConfigError if a name matches nothing.
    """
    paths: dict[tuple[int, int], Path] = {}  # by device and inode
    for pattern in map(str, files):
        names = [pattern] if os.path.exists(pattern) else sorted(glob.glob(pattern, recursive=True))
        matches = dict.fromkeys(path for name in names for path in _readable(Path(name), field))
        if not matches:
            raise ConfigError(
                f"{field}: {pattern!r} matches no file below {os.getcwd()}; give JSONL files, "
                "folders of `e5jax data prepare`, or glob patterns"
            )
        for path in matches:
            status = path.stat()
            paths.setdefault((status.st_dev, status.st_ino), path)
    return list(paths.values())


def _readable(path: Path, field: str) -> list[Path]:
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise ConfigError(f"{field}: {path} is no regular file; files are read more than once")
    if is_prepared(path):
        return [path]
    versions = sorted(inner for inner in path.iterdir() if is_prepared(inner))
    if len(versions) > 1:
        names = ", ".join(inner.name for inner in versions)
        raise ConfigError(f"{field}: {path} has {names}; name one of them")
    return versions


def jsonl(files: Sequence[str | Path], field: str = "--input") -> list[Path]:
    """Like `expand`, but accepts JSONL files only."""
    paths = expand(files, field)
    if prepared := [path for path in paths if path.is_dir()]:
        raise ConfigError(
            f"{field}: {prepared[0]} is prepared already; give the JSONL from which it was prepared"
        )
    for path in paths:
        check_records(path)
    return paths


def open_parts(paths: Sequence[Path]) -> list[Lines | Prepared]:
    """Opens the paths that `expand` returned."""
    return [Prepared(path) if path.is_dir() else Lines(path) for path in paths]


def _check(parts: Sequence[Lines | Prepared], needs: Needs) -> str:
    """The SHA-256 of all examples. Raises ConfigError with the first bad ones."""
    digest = hashlib.sha256()
    problems = [
        f"{where}: {problem}"
        for part in parts
        for where, example in part.scan(digest)
        if (problem := problem_of(example, needs))
    ]
    if problems:
        raise ConfigError(
            f"config.data.files: {len(problems)} bad lines, the first are\n  "
            + "\n  ".join(problems[:SHOWN])
        )
    return digest.hexdigest()


def problem_of(example: Example | str, needs: Needs) -> str | None:
    """Returns why training cannot use an example that `scan` yielded, or None."""
    if isinstance(example, str):
        return example
    count = len(example.negatives)
    if count < needs.negatives:
        return f"{count} negatives, but {needs.negatives} are needed"
    if needs.drawn is None:
        return None
    own = {example.query, *example.positives} if needs.masked else set()
    equal = sum(text in own for text in example.negatives)
    if equal == count:
        negatives = f"{equal} negatives, all equal to its query or a positive"
        return (
            f"{negatives if equal else 'no negatives'}, and its query is compared with no others; "
            "give it hard negatives, or in-batch negatives"
        )
    if equal >= needs.drawn:
        return (
            f"{equal} negatives are equal to its query or a positive, and a batch may take "
            "no others; remove them"
        )
    return None
