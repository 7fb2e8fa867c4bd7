"""Random access to the lines of a file: their offsets are in memory, the lines stay on disk."""

import hashlib
import os
import weakref
from array import array
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from e5jax.data.compressed import LIMITS, DamagedError, Limits, chunks, is_compressed
from e5jax.data.files import Line, Rejected, check_records, decoded, temporary_copy
from e5jax.data.records import Example, make_example, parse_example
from e5jax.errors import RecordError
from e5jax.jsonl import parse_object

_BLOCK = 1 << 13  # bytes that are read at once for a line
_PIECE = 1 << 20  # and for all lines


class LineFile:
    """A file whose lines are read in order, and then by their offset.

    A compressed file is decompressed to a temporary file without a name, which disappears with the
    last process that has it open. Safe to read from many threads; a pickled copy opens the file
    again.
    """

    def __init__(self, path: Path, limits: Limits = LIMITS):
        self.path, self._limits = path, limits
        self._damage: str | None = None
        self._open()

    @property
    def size(self) -> int:
        """Bytes of the decompressed file."""
        return os.fstat(self._descriptor).st_size

    def lines(self, digest: "hashlib._Hash | None" = None) -> Iterator[Line | Rejected]:
        """Yields all lines that are not blank; the digest is updated with the bytes of the file."""
        return decoded(self._pieces(digest), str(self.path), self._limits)

    def read_line(self, start: int) -> bytes:
        """Returns the line that begins at `start`, without its end."""
        line = b""
        while b"\n" not in line:
            piece = os.pread(self._descriptor, max(_BLOCK, len(line)), start + len(line))
            if not piece:
                break
            line += piece
        line = line.partition(b"\n")[0]
        return line.removeprefix(b"\xef\xbb\xbf") if start == 0 else line

    def _pieces(self, digest: "hashlib._Hash | None") -> Iterator[bytes]:
        start = 0
        while piece := os.pread(self._descriptor, _PIECE, start):
            start += len(piece)
            if digest:
                digest.update(piece)
            yield piece
        if self._damage:
            raise DamagedError(self._damage)

    def __getstate__(self) -> dict:
        status = os.fstat(self._descriptor)
        opened = (f"/proc/{os.getpid()}/fd/{self._descriptor}", status.st_dev, status.st_ino)
        return {**self.__dict__, "_descriptor": None, "_opened": opened}

    def __setstate__(self, state: dict) -> None:
        opened = state.pop("_opened")
        self.__dict__.update(state)
        self._open(*opened)

    def _open(self, other: str = "", device: int = 0, inode: int = 0) -> None:
        """Opens the file, or its decompressed copy: that at `other`, if another process has it."""
        if not is_compressed(self.path):
            descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        elif (descriptor := _reopened(other, device, inode)) is None:
            descriptor, self._damage = _decompressed(self.path, self._limits)
        self._descriptor: int = descriptor
        weakref.finalize(self, os.close, descriptor)


class Lines:
    """The examples of a JSONL file in order, once `scan` has been read to its end.

    Blank lines are skipped.
    """

    def __init__(self, path: Path):
        check_records(path)
        self.path, self._file = path, LineFile(path)
        self._starts = self._numbers = np.zeros(0, np.int64)

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, index: int) -> Example:
        line = self._file.read_line(int(self._starts[index]))
        return parse_example(line.strip(), f"{self.path}:{self._numbers[index]}")

    def scan(self, digest: "hashlib._Hash") -> Iterator[tuple[str, Example | str]]:
        """Yields `file:line` of each line that is not blank, and its example or the error.

        The digest is updated with the size and the bytes of the decompressed file.
        """
        digest.update(f"{self._file.size}\n".encode())
        starts, numbers = array("q"), array("q")
        for line in self._file.lines(digest):
            if isinstance(line, Rejected):
                yield f"{self.path}:{line.line}", line.reason
                continue
            where = f"{self.path}:{line.number}"
            try:
                example = make_example(parse_object(line.text), where)
            except RecordError as error:
                yield where, str(error)
                continue
            starts.append(line.start)
            numbers.append(line.number)
            yield where, example
        self._starts, self._numbers = np.array(starts, np.int64), np.array(numbers, np.int64)


def _reopened(path: str, device: int, inode: int) -> int | None:
    """The file that another process has open at `path`, if it has these numbers."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:  # no /proc here, or the process has ended
        return None
    status = os.fstat(descriptor)
    if (status.st_dev, status.st_ino) == (device, inode):
        return descriptor
    os.close(descriptor)
    return None


def _decompressed(path: Path, limits: Limits) -> tuple[int, str | None]:
    """A temporary file with the content of `path` up to any damage, and what the damage is."""
    damage: list[str] = []

    def pieces() -> Iterator[bytes]:
        try:
            yield from chunks(path, limits)
        except DamagedError as error:
            damage.append(str(error))

    descriptor = temporary_copy(pieces(), path)
    return descriptor, damage[0] if damage else None
