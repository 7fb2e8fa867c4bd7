"""Standard output and standard error that never end a run.

A character that the terminal's encoding lacks is printed as an escape. Once nobody reads the output any more, as in
`e5jax train | head -1`, it is discarded and the command goes on to its end. A full disk below standard output is an error,
since what was asked for would be lost; below standard error it is not.
"""

import io
import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, TextIO

from e5jax.errors import report

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


class _Output(io.FileIO):
    """A file descriptor that becomes /dev/null when its reader is gone."""

    def __init__(self, descriptor: int, name: str, required: bool):
        super().__init__(descriptor, "wb", closefd=False)
        self._name, self._required = name, required
        self._terminal = self.isatty()

    def write(self, data: "ReadableBuffer", /) -> int:
        try:
            return super().write(data)
        except OSError as error:
            gone = isinstance(error, BrokenPipeError) or self._terminal  # a terminal that was closed gives EIO
            if gone or self._required:
                null = os.open(os.devnull, os.O_WRONLY)
                os.dup2(null, self.fileno())  # for child processes and native code, too
                os.close(null)
            if self._required and not gone:
                raise OSError(error.errno, error.strerror, self._name) from error
            return memoryview(data).nbytes


def open_streams() -> None:
    """Replaces sys.stdout and sys.stderr. Standard streams that are closed are opened on /dev/null."""
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number; else the next file of the run would be standard output
    sys.stdout = _text(1, "standard output", sys.stdout, required=True)
    sys.stderr = _text(2, "standard error", sys.stderr, required=False)


def _text(descriptor: int, name: str, before: TextIO | None, *, required: bool) -> TextIO:
    buffer = io.BufferedWriter(_Output(descriptor, name, required))
    encoding = before.encoding if before is not None else "utf-8"
    buffered = isinstance(before, io.TextIOWrapper) and not before.line_buffering
    unbuffered = isinstance(before, io.TextIOWrapper) and before.write_through
    return io.TextIOWrapper(buffer, encoding, errors="backslashreplace", line_buffering=not buffered, write_through=unbuffered)


def exit_code(main: Callable[[], int]) -> int:
    """What `main` returns or exits with, once everything it printed has been written."""
    try:
        try:
            code = main()
        except SystemExit as end:  # argparse
            code = end.code if isinstance(end.code, int) else 0
        sys.stdout.flush()
    except OSError as error:
        code = report(error)
    return code
