"""Examples of a JSONL file, read at random: byte offsets are in memory, the lines stay on disk."""

import hashlib
import os
import weakref
from array import array
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from e5jax.data.compressed import LIMITS, DamagedError, chunks, is_compressed
from e5jax.data.files import Rejected, check_records, decoded, temporary_copy
from e5jax.data.records import Example, make_example, parse_example
from e5jax.errors import RecordError
from e5jax.jsonl import parse_object


class Lines:
    """The examples of one file, in order, once `scan` has been read to its end. Blank lines are no examples.

    A compressed file is decompressed to a temporary one without a name, which goes with the last process that has it open.
    Safe to read from many threads; a pickled copy opens the file anew.
    """

    def __init__(self, path: Path):
        check_records(path)
        self.path = path
        self._starts = np.zeros(1, np.int64)  # and the end
        self._numbers = np.zeros(0, np.int64)
        self._damage: str | None = None
        self._open()

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, index: int) -> Example:
        start, end = self._starts[index : index + 2].tolist()
        line = os.pread(self._descriptor, end - start, start)  # blank lines behind it included
        return parse_example(
            line.removeprefix(b"\xef\xbb\xbf" if start == 0 else b"").strip(), self.where(index)
        )

    def where(self, index: int) -> str:
        """`file:line` of an example."""
        return f"{self.path}:{self._numbers[index]}"

    def scan(self, digest: "hashlib._Hash") -> Iterator[tuple[str, Example | str]]:
        """`file:line` of each line that is not blank, and its example or what is wrong with it.

        The digest is fed the size and the bytes of the decompressed file.
        """
        size = os.fstat(self._descriptor).st_size
        digest.update(f"{size}\n".encode())
        starts, numbers = array("q"), array("q")
        for line in decoded(self._pieces(digest), str(self.path), LIMITS):
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
        starts.append(size)
        self._starts, self._numbers = np.array(starts, np.int64), np.array(numbers, np.int64)

    def _pieces(self, digest: "hashlib._Hash") -> Iterator[bytes]:
        with os.fdopen(os.dup(self._descriptor), "rb") as file:
            file.seek(0)
            while piece := file.read(1 << 20):
                digest.update(piece)
                yield piece
        if self._damage:
            raise DamagedError(self._damage)

    def __getstate__(self) -> dict:
        status = os.fstat(self._descriptor)
        opened = (f"/proc/{os.getpid()}/fd/{self._descriptor}", status.st_dev, status.st_ino)
        return {name: value for name, value in self.__dict__.items() if name != "_descriptor"} | {
            "_opened": opened
        }

    def __setstate__(self, state: dict) -> None:
        opened = state.pop("_opened")
        self.__dict__.update(state)
        self._open(*opened)

    def _open(self, place: str = "", device: int = 0, inode: int = 0) -> None:
        """Opens the file. Of a compressed one it is the decompressed file at `place`, if that is still there; else a new one."""
        if not is_compressed(self.path):
            descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        elif (descriptor := _reopened(place, device, inode)) is None:
            descriptor, self._damage = _decompressed(self.path)
        self._descriptor: int = descriptor
        weakref.finalize(self, os.close, descriptor)


def _reopened(place: str, device: int, inode: int) -> int | None:
    """The file that another process has open at `place`, if it is the one with these numbers."""
    try:
        descriptor = os.open(place, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:  # no /proc here, or the process has ended
        return None
    status = os.fstat(descriptor)
    if (status.st_dev, status.st_ino) == (device, inode):
        return descriptor
    os.close(descriptor)
    return None


def _decompressed(path: Path) -> tuple[int, str | None]:
    """A temporary file with the content of `path` up to where it is damaged, and what the damage is."""
    damage: list[str] = []

    def pieces() -> Iterator[bytes]:
        try:
            yield from chunks(path, LIMITS)
        except DamagedError as error:
            damage.append(str(error))

    descriptor = temporary_copy(pieces(), path)
    return descriptor, damage[0] if damage else None
