"""Random access to training examples, JSONL or prepared: what is wrong with them is said on opening, not hours later."""

import glob
import hashlib
import operator
import os
from collections.abc import Sequence
from pathlib import Path
from typing import SupportsIndex

import numpy as np

from e5jax.data.lines import Lines
from e5jax.data.prepared import Prepared, is_prepared
from e5jax.errors import ConfigError
from e5jax.records import Example

SHOWN = 5


class ExampleSource:
    """The examples of JSONL files and of folders that `e5jax data prepare` wrote, in order; a
    `grain.sources.RandomAccessDataSource`.

    `files` may be glob patterns. Every example is read and checked once, on opening; after that only byte offsets are in
    memory. Safe to read from many threads, and a pickled copy opens the files anew.
    """

    def __init__(self, files: Sequence[str | Path], negatives: int):
        self._parts = open_parts(expand(files))
        self.fingerprint = _check(self._parts, negatives)
        self._ends = np.cumsum([len(part) for part in self._parts])
        if not len(self):
            raise ConfigError(f"config.data.files: no examples in {', '.join(map(str, files)) or 'no files'}")

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

    A folder is one that `prepare` wrote, or one with one such folder in it: `data/nq` is `data/nq/1.0.0`.
    """
    paths: list[Path] = []
    for pattern in map(str, files):
        found = [pattern] if os.path.exists(pattern) else sorted(glob.glob(pattern, recursive=True))
        chosen = dict.fromkeys(path for name in found for path in _readable(Path(name), at))
        if not chosen:
            raise ConfigError(
                f"{at}: {pattern!r} matches no file below {os.getcwd()}; give JSONL files, folders of "
                "`e5jax data prepare`, or glob patterns"
            )
        paths += chosen
    return paths


def _readable(path: Path, at: str) -> list[Path]:
    if not path.is_dir():
        return [path]
    versions = [path] if is_prepared(path) else sorted(inner for inner in path.iterdir() if is_prepared(inner))
    if len(versions) > 1:
        raise ConfigError(f"{at}: {path} has {', '.join(inner.name for inner in versions)}; name one of them")
    return versions


def jsonl(files: Sequence[str | Path], at: str = "--input") -> list[Path]:
    """What `expand` finds, if these are files: prepared folders are the end of a set's way."""
    found = expand(files, at)
    if prepared := [path for path in found if path.is_dir()]:
        raise ConfigError(f"{at}: {prepared[0]} is prepared already; give the JSONL that it is made of")
    return found


def open_parts(paths: Sequence[Path]) -> list[Lines | Prepared]:
    """What `expand` found, ready to be read."""
    return [Prepared(path) if path.is_dir() else Lines(path) for path in paths]


def _check(parts: Sequence[Lines | Prepared], negatives: int) -> str:
    """SHA-256 of all examples; raises ConfigError with what is wrong with any."""
    digest = hashlib.sha256()
    problems = [
        f"{where}: {problem}" for part in parts for where, found in part.scan(digest) if (problem := problem_of(found, negatives))
    ]
    if problems:
        raise ConfigError(f"config.data.files: {len(problems)} bad lines, the first are\n  " + "\n  ".join(problems[:SHOWN]))
    return digest.hexdigest()


def problem_of(found: Example | str, negatives: int) -> str | None:
    """Why training cannot use what `scan` found."""
    if isinstance(found, str):
        return found
    if len(found.negatives) < negatives:
        return f"{len(found.negatives)} negatives, but config.batch.negatives={negatives} needs as many"
    return None
