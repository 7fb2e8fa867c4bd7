"""Random access to training examples in JSONL files: what is wrong with them is said on opening, not hours later."""

import glob
import hashlib
import operator
import os
import weakref
from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import SupportsIndex

import numpy as np
from jaxtyping import Int

from e5jax.errors import ConfigError
from e5jax.records import Example, parse_example

SHOWN = 5


class ExampleSource:
    """The examples of one or more JSONL files, in order; a `grain.sources.RandomAccessDataSource`.

    `files` may be glob patterns. Every line is read and checked once, on opening; after that only byte offsets are in
    memory. Safe to read from many threads, and a pickled copy opens the files anew.
    """

    def __init__(self, files: Sequence[str | Path], negatives: int):
        self._paths = expand(files)
        self._spans, self.fingerprint = _scan(self._paths, negatives)
        self._open()

    def __len__(self) -> int:
        return len(self._spans)

    def __getitem__(self, index: SupportsIndex) -> Example:
        i = operator.index(index)
        if not 0 <= i < len(self):
            raise IndexError(f"example {i} of {len(self)}")
        file, start, length = self._spans[i].tolist()
        line = os.pread(self._descriptors[file], length, start)
        return parse_example(line, f"{self._paths[file]} at byte {start}")

    def __repr__(self) -> str:
        return f"ExampleSource({len(self)} examples, fingerprint={self.fingerprint})"

    def __getstate__(self) -> dict:
        return {"_paths": self._paths, "_spans": self._spans, "fingerprint": self.fingerprint}

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(state)
        self._open()

    def _open(self) -> None:
        self._descriptors = [os.open(path, os.O_RDONLY | os.O_CLOEXEC) for path in self._paths]
        weakref.finalize(self, _close, self._descriptors)


def expand(files: Sequence[str | Path], at: str = "config.data.files") -> list[Path]:
    """Files and glob patterns to paths, the matches of a pattern sorted; a name that matches nothing is an error."""
    paths = []
    for pattern in map(str, files):
        found = [pattern] if os.path.isfile(pattern) else sorted(filter(os.path.isfile, glob.glob(pattern, recursive=True)))
        if not found:
            raise ConfigError(f"{at}: {pattern!r} matches no file below {os.getcwd()}; give JSONL files or glob patterns")
        paths += map(Path, found)
    return paths


def _scan(paths: Sequence[Path], negatives: int) -> tuple[Int[np.ndarray, "examples 3"], str]:
    """File, first byte and length of every line, and the SHA-256 of all bytes."""
    spans = array("q")
    digest = hashlib.sha256()
    problems: list[str] = []
    for number, path in enumerate(paths):
        digest.update(f"{path.stat().st_size}\n".encode())
        start = 0
        with path.open("rb") as file:
            for count, line in enumerate(file, start=1):
                digest.update(line)
                spans.extend((number, start, len(line)))
                start += len(line)
                if problem := problem_of(line, f"{path}:{count}", negatives):
                    problems.append(problem)
    if problems:
        raise ConfigError(f"config.data.files: {len(problems)} bad lines, the first are\n  " + "\n  ".join(problems[:SHOWN]))
    if not spans:
        raise ConfigError(f"config.data.files: no examples in {', '.join(map(str, paths)) or 'no files'}")
    return np.array(spans, np.int64).reshape(-1, 3), digest.hexdigest()


def problem_of(line: bytes, where: str, negatives: int) -> str | None:
    """`where: reason` for a line that training cannot use."""
    try:
        example = parse_example(line, where)
    except ConfigError as error:
        return str(error)
    if len(example.negatives) < negatives:
        return f"{where}: {len(example.negatives)} negatives, but config.batch.negatives={negatives} needs as many"
    return None


def _close(descriptors: Sequence[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)
