"""Which requests have left this machine: a mark is written as their bytes go out, and nobody waits until a disk has it.

The kernel keeps what was written when a process is killed, and may lose it when the machine goes down. So marks tell about
the boot that they were made in, and about one session of the journal that they lie beside.
"""

import errno
import os
from pathlib import Path
from typing import BinaryIO

BOOT = Path(
    "/proc/sys/kernel/random/boot_id"
)  # other systems have no such file: their marks tell nothing


class SentLog:
    """`begin`, then call it with a number for each request that leaves."""

    def __init__(self, path: Path):
        self._path = path
        self._file: BinaryIO | None = None

    def read(self, session: int) -> frozenset[int] | None:
        """The numbers of that session; None where they cannot be known."""
        if not BOOT.exists() or not self._path.exists():
            return None
        head, _, numbers = self._path.read_bytes().partition(b"\n")
        if head != _head(session) or not all(map(bytes.isdigit, numbers.split())):
            return None
        return frozenset(map(int, numbers.split()))

    def begin(self, session: int) -> None:
        """Forgets the marks of earlier sessions."""
        self._file = self._path.open("wb", buffering=0)
        self._file.write(_head(session))

    def __call__(self, number: int) -> None:
        """Raises OSError when the mark is not whole."""
        assert self._file is not None
        mark = b"\n%d" % number  # a mark that a full disk cut off ends where the next one begins
        if self._file.write(mark) != len(mark):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


def _head(session: int) -> bytes:
    boot = BOOT.read_text(encoding="ascii").strip() if BOOT.exists() else ""
    return f"{boot} {session}".encode()
