"""Random access to training examples, JSONL or prepared: what is wrong with them is said on opening, not hours later."""

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

SHOWN = 5


class Needs(NamedTuple):
    """What training needs of every example of a set."""

    negatives: int = 0  # hard ones, at least
    drawn: int | None = (
        None  # hard ones that a batch takes, of a query that has no other negatives; None: it has others
    )
    masked: bool = False  # texts equal to its query or one of its positives are no negatives


class ExampleSource:
    """The examples of JSONL files and of folders that `e5jax data prepare` wrote, in order; a
    `grain.sources.RandomAccessDataSource`.

    `files` may be glob patterns. Every example is read and checked once, on opening, by what the other arguments say it needs
    (see `Needs`). After that only byte offsets are in memory. Safe to read from many threads, and a pickled copy opens the files
    anew.
    """

    def __init__(
        self,
        files: Sequence[str | Path],
        negatives: int,
        drawn: int | None = None,
        *,
        masked: bool = False,
    ):
        self._parts = open_parts(expand(files))
        self.fingerprint = _check(self._parts, Needs(negatives, drawn, masked))
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
        place = int(np.searchsorted(self._ends, i, "right"))
        return self._parts[place][i - int(self._ends[place]) + len(self._parts[place])]

    def __repr__(self) -> str:
        return f"ExampleSource({len(self)} examples, fingerprint={self.fingerprint})"


def expand(files: Sequence[str | Path], at: str = "config.data.files") -> list[Path]:
    """Files, folders and glob patterns to paths, the matches of a pattern sorted; a name that matches nothing is an error.

    A file comes once, by whatever names and patterns it is given.

    A folder is one that `prepare` wrote, or one with one such folder in it: `data/nq` is `data/nq/1.0.0`.
    """
    paths: dict[tuple[int, int], Path] = {}  # by device and inode
    for pattern in map(str, files):
        found = [pattern] if os.path.exists(pattern) else sorted(glob.glob(pattern, recursive=True))
        chosen = dict.fromkeys(path for name in found for path in _readable(Path(name), at))
        if not chosen:
            raise ConfigError(
                f"{at}: {pattern!r} matches no file below {os.getcwd()}; give JSONL files, folders of "
                "`e5jax data prepare`, or glob patterns"
            )
        for path in chosen:
            status = path.stat()
            paths.setdefault((status.st_dev, status.st_ino), path)
    return list(paths.values())


def _readable(path: Path, at: str) -> list[Path]:
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise ConfigError(f"{at}: {path} is no regular file; files are read more than once")
    versions = (
        [path]
        if is_prepared(path)
        else sorted(inner for inner in path.iterdir() if is_prepared(inner))
    )
    if len(versions) > 1:
        raise ConfigError(
            f"{at}: {path} has {', '.join(inner.name for inner in versions)}; name one of them"
        )
    return versions


def jsonl(files: Sequence[str | Path], at: str = "--input") -> list[Path]:
    """What `expand` finds, if these are files: prepared folders are the end of a set's way."""
    found = expand(files, at)
    if prepared := [path for path in found if path.is_dir()]:
        raise ConfigError(
            f"{at}: {prepared[0]} is prepared already; give the JSONL that it is made of"
        )
    for path in found:
        check_records(path)
    return found


def open_parts(paths: Sequence[Path]) -> list[Lines | Prepared]:
    """What `expand` found, ready to be read."""
    return [Prepared(path) if path.is_dir() else Lines(path) for path in paths]


def _check(parts: Sequence[Lines | Prepared], needs: Needs) -> str:
    """SHA-256 of all examples; raises ConfigError with what is wrong with any."""
    digest = hashlib.sha256()
    problems = [
        f"{where}: {problem}"
        for part in parts
        for where, found in part.scan(digest)
        if (problem := problem_of(found, needs))
    ]
    if problems:
        raise ConfigError(
            f"config.data.files: {len(problems)} bad lines, the first are\n  "
            + "\n  ".join(problems[:SHOWN])
        )
    return digest.hexdigest()


def problem_of(found: Example | str, needs: Needs) -> str | None:
    """Why training cannot use what `scan` found."""
    if isinstance(found, str):
        return found
    if len(found.negatives) < needs.negatives:
        return f"{len(found.negatives)} negatives, but {needs.negatives} are needed"
    if needs.drawn is None:
        return None
    own = {found.query, *found.positives} if needs.masked else set()
    equal = sum(text in own for text in found.negatives)
    if equal == len(found.negatives):
        like = (
            f"{equal} negatives, all equal to its query or a positive" if equal else "no negatives"
        )
        return f"{like}, and its query is compared with no others; give it hard negatives, or in-batch negatives"
    if equal >= needs.drawn:
        return f"{equal} negatives are equal to its query or a positive, and a batch may take them alone; remove them"
    return None
