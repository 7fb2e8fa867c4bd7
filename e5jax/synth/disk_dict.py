"""Lines by key on disk, for runs whose examples do not fit into memory."""

import os
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Self

_scratch = partial(tempfile.TemporaryFile, buffering=0)


class DiskDict:
    """Only keys and places are in memory. Use with `with`: it holds a temporary file in `folder`."""

    def __init__(self, folder: Path):
        self._file = _scratch(dir=folder)
        self._places: dict[str, tuple[int, int]] = {}
        self._end = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, key: str) -> bool:
        return key in self._places

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def put(self, key: str, line: str) -> None:
        """Keeps a line, instead of the one that the key had."""
        data = line.encode()
        self._file.write(data)
        self._places[key] = self._end, len(data)
        self._end += len(data)

    def get(self, key: str) -> str:
        """The line that was put last. Raises KeyError."""
        start, length = self._places[key]
        return os.pread(self._file.fileno(), length, start).decode()

    def drop(self, key: str) -> None:
        """Forgets a line."""
        del self._places[key]
