"""Examples of a JSONL file, read at random: byte offsets are in memory, the lines stay on disk."""

import hashlib
import os
import weakref
from array import array
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from e5jax.errors import ConfigError
from e5jax.records import Example, parse_example


class Lines:
    """The examples of one file, in order, once `scan` has been read to its end.

    Safe to read from many threads; a pickled copy opens the file anew.
    """

    def __init__(self, path: Path):
        self.path = path
        self._starts = np.zeros(1, np.int64)  # and the end
        self._open()

    def __len__(self) -> int:
        return len(self._starts) - 1

    def __getitem__(self, index: int) -> Example:
        start, end = self._starts[index : index + 2].tolist()
        return parse_example(os.pread(self._descriptor, end - start, start), f"{self.path} at byte {start}")

    def scan(self, digest: "hashlib._Hash") -> Iterator[tuple[str, Example | str]]:
        """`file:line` of each example, and itself or what is wrong with it. The digest is fed the file's size and bytes."""
        digest.update(f"{self.path.stat().st_size}\n".encode())
        starts = array("q", [0])
        with self.path.open("rb") as file:
            for count, line in enumerate(file, start=1):
                digest.update(line)
                starts.append(starts[-1] + len(line))
                where = f"{self.path}:{count}"
                try:
                    yield where, parse_example(line, where)
                except ConfigError as error:
                    yield where, str(error).removeprefix(f"{where}: ")
        self._starts = np.array(starts, np.int64)

    def __getstate__(self) -> dict:
        return {"path": self.path, "_starts": self._starts}

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(state)
        self._open()

    def _open(self) -> None:
        self._descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        weakref.finalize(self, os.close, self._descriptor)
