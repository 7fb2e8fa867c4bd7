"""Lines of a file by key: three numbers a line are in memory, the lines stay on disk."""

import tempfile
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import IO, Generic, NamedTuple, Self, TypeVar

import numpy as np

from e5jax.data.compressed import chunks, is_compressed
from e5jax.data.files import Line, decoded
from e5jax.datasets.readers.result import Limits, Rejected
from e5jax.errors import RecordError

Value = TypeVar("Value")


class Found(NamedTuple, Generic[Value]):
    """What a line holds for its key."""

    number: int
    value: Value


class Offsets(Generic[Value]):
    """An index of a file; `parse` gives a line's key and value, or raises RecordError.

    Call `scan` once, to its end; `find` then reads from disk. A compressed file is decompressed to a temporary one.
    """

    def __init__(self, path: Path, limits: Limits, parse: Callable[[str], tuple[str, Value]]):
        self.path, self._limits, self._parse = path, limits, parse
        self._spooled = is_compressed(path)
        open_file = tempfile.TemporaryFile if self._spooled else partial(path.open, "rb")
        self._open = ExitStack()
        self._file: IO[bytes] = self._open.enter_context(open_file())
        self._hashes = self._starts = self._numbers = np.empty(0, np.int64)
        self._used = np.empty(0, bool)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def scan(self, unique: bool, skip: Callable[[str], bool] | None = None) -> Iterator[Rejected]:
        """Reads the file once; `unique`: a key that comes again is rejected. A line that `skip` knows is left out."""
        hashes, starts, numbers = array("q"), array("q"), array("q")
        for line in decoded(self._pieces(), str(self.path), self._limits):
            if isinstance(line, Rejected):
                yield line
                continue
            try:
                if skip and skip(line.text):
                    continue
                hashes.append(
                    hash(self._parse(line.text)[0])
                )  # of this process; equal hashes are told apart in `find`
            except RecordError as error:
                yield Rejected(str(self.path), line.number, str(error))
                continue
            starts.append(line.start)
            numbers.append(line.number)
        keys = np.array(hashes, np.int64)
        order = np.argsort(keys, kind="stable")
        self._hashes, self._starts, self._numbers = (
            np.array(a, np.int64)[order] for a in (keys, starts, numbers)
        )
        self._used = np.zeros(len(order), bool)
        if unique:
            yield from self._repeated()

    def find(self, key: str) -> list[Found[Value]]:
        """What the lines with this key hold, in the order of the file; marks them as used."""
        wanted = hash(key)
        first, last = (
            int(np.searchsorted(self._hashes, wanted, side)) for side in ("left", "right")
        )
        found = []
        for place in range(first, last):
            other, value = self._parse(self._line(place))
            if other == key:
                self._used[place] = True
                found.append(Found(int(self._numbers[place]), value))
        return found

    def was_used(self, key: str) -> bool:
        """Whether `find` has been asked for this key and had something."""
        first, last = (
            int(np.searchsorted(self._hashes, hash(key), side)) for side in ("left", "right")
        )
        return any(
            self._used[place] and self._parse(self._line(place))[0] == key
            for place in range(first, last)
        )

    def unused(self) -> Iterator[tuple[int, str]]:
        """Number and key of the lines that nobody asked for, in the order of the file."""
        for place in sorted(
            np.flatnonzero(~self._used).tolist(), key=lambda i: int(self._numbers[i])
        ):
            yield int(self._numbers[place]), self._parse(self._line(place))[0]

    def _pieces(self) -> Iterable[bytes]:
        for piece in chunks(self.path, self._limits):
            if self._spooled:
                self._file.write(piece)
            yield piece

    def _line(self, place: int) -> str:
        self._file.seek(int(self._starts[place]))
        (line,) = decoded([self._file.readline()], str(self.path), self._limits)
        assert isinstance(line, Line), "it was one when it was scanned"
        return line.text

    def _repeated(self) -> Iterator[Rejected]:
        for place in np.flatnonzero(self._hashes[1:] == self._hashes[:-1]).tolist():
            first, second = (self._parse(self._line(i))[0] for i in (place, place + 1))
            if first == second:
                reason = f"id occurs again: {second!r}; the first one counts"
                yield Rejected(str(self.path), int(self._numbers[place + 1]), reason)


def find_in(parts: Sequence[Offsets[Value]], key: str) -> Found[Value] | None:
    """What the first of these files that knows the key holds."""
    return next((found[0] for part in parts if (found := part.find(key))), None)
