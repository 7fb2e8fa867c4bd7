"""Lines of a text file at random, with no more than their offsets in memory."""

import os
import weakref
from array import array
from pathlib import Path

import numpy as np

from e5jax.errors import ConfigError


class Lines:
    """The lines of a file. Blank ones are left out."""

    def __init__(self, path: Path):
        if not path.is_file():
            raise ConfigError(f"{path}: there is no such file")
        self.path = path
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        weakref.finalize(self, os.close, self._descriptor)
        spans, start = array("q"), 0
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    spans.extend((start, len(line), number))
                start += len(line)
        self._spans = np.array(spans, np.int64).reshape(-1, 3)

    def __len__(self) -> int:
        return len(self._spans)

    def __getitem__(self, index: int) -> bytes:
        start, length, _ = self._spans[index].tolist()
        return os.pread(self._descriptor, length, start)

    def where(self, index: int) -> str:
        """`file:line` of a line."""
        return f"{self.path}:{self._spans[index, 2]}"
