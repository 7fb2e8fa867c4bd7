"""Errors that end a command, with their exit codes, and standard streams that never end one.

Imports no other package: the launcher uses it on machines where none is installed.
"""

import errno
import io
import os
import sys
import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

DONE, ERROR, USAGE, CONFIG = 0, 1, 2, 3
STOPPED = 75  # what was done is safe, the same command goes on
WATCHDOG = 99  # it hung, or another process of the run was lost; the same command goes on


class ConfigError(ValueError):
    """A configuration field, value, option or data file is wrong. Says which, and the fix; exit code 3."""


class RecordError(ValueError):
    """A record cannot be used. Says why; whoever reads the file adds the place."""


class RunError(RuntimeError):
    """A run cannot go on. Says where and why; exit code 1."""


class StoppedError(Exception):
    """A run was told to stop, and has saved what it had; exit code 75."""


# Exit codes of the errors that are reported in one line. For an OSError see `report`.
CODES: dict[type[BaseException], int] = {
    ConfigError: CONFIG,
    RunError: ERROR,
    StoppedError: STOPPED,
    KeyboardInterrupt: ERROR,
    OSError: ERROR,
}
REPORTED = tuple(CODES)
TRACEBACK = "E5JAX_TRACEBACK"  # if this environment variable is set, the traceback is printed too

_OTHER = "choose another path"
_SPACE = "free some space and run the same command again"
_RIGHTS = "change its permissions, or choose a path that this user may read and write"
# A path that is wrong: the fix by error number. All other errors are the machine's.
_PATH_FIXES = {
    errno.ENOENT: "check the path",
    errno.ENOTDIR: "a part of this path is a file; check the path",
    errno.EISDIR: "name a file",
    errno.ENOTEMPTY: _OTHER,
    errno.EEXIST: _OTHER,
    errno.EACCES: _RIGHTS,
    errno.EPERM: _RIGHTS,
    errno.EROFS: _OTHER,
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.ELOOP: "its symbolic links lead in a circle; check the path",
    errno.ENXIO: "name a regular file",
    errno.ENODEV: "name a regular file",
    errno.ESPIPE: "name a regular file",
}
_MACHINE_FIXES = {
    errno.ENOSPC: _SPACE,
    errno.EDQUOT: _SPACE,
    errno.EFBIG: "raise the limit on the size of a file (ulimit -f), or choose another disk",
    errno.EMFILE: "raise the limit on open files (ulimit -n)",
    errno.ENOMEM: "free some memory",
}
_WRITE_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS)


def report(error: BaseException) -> int:
    """Prints in one line what stopped a run, if it is one of `CODES`, and returns its exit code."""
    if os.environ.get(TRACEBACK):
        traceback.print_exception(error)
    line = (
        "interrupted"
        if isinstance(error, KeyboardInterrupt)
        else _describe(error)
        if isinstance(error, OSError)
        else error
    )
    print(f"e5jax: {line}", file=sys.stderr, flush=True)
    if isinstance(error, OSError):
        return CONFIG if error.errno in _PATH_FIXES else ERROR
    return next(code for kind, code in CODES.items() if isinstance(error, kind))


def name_path(error: OSError, path: os.PathLike[str] | str) -> None:
    """Adds the path to an error of a write, which has none: a full disk is known by the file that did not fit."""
    if error.filename is None and error.errno in _WRITE_ERRORS:
        error.filename = str(path)


def _describe(error: OSError) -> str:
    """Path, reason and fix in one line. Libraries raise OSErrors that have only words."""
    if error.strerror is None:
        return " ".join(str(error).split()) or type(error).__name__
    path = error.filename2 or error.filename
    place = "" if path is None else f"{os.fsdecode(path) if isinstance(path, bytes) else path}: "
    fix = {**_PATH_FIXES, **_MACHINE_FIXES}.get(error.errno or 0)
    return f"{place}{' '.join(error.strerror.split())}{f'; {fix}' if fix else ''}"


# --- standard output and standard error ---------------------------------------------------------------
#
# A character that the encoding of the terminal lacks is printed as an escape. Once nobody reads the
# output any more, as in `e5jax train | head -1`, it is discarded and the command runs to its end. A
# full disk below standard output is an error, since output would be lost; below standard error it is
# not.


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
            gone = (
                isinstance(error, BrokenPipeError) or self._terminal
            )  # a terminal that was closed gives EIO
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
            os.open(
                os.devnull, os.O_RDWR
            )  # takes the lowest free number; else the next file of the run would be standard output
    sys.stdout = _text(1, "standard output", sys.stdout, required=True)
    sys.stderr = _text(2, "standard error", sys.stderr, required=False)


def _text(descriptor: int, name: str, before: TextIO | None, *, required: bool) -> TextIO:
    buffer = io.BufferedWriter(_Output(descriptor, name, required))
    encoding = before.encoding if before is not None else "utf-8"
    buffered = isinstance(before, io.TextIOWrapper) and not before.line_buffering
    unbuffered = isinstance(before, io.TextIOWrapper) and before.write_through
    return io.TextIOWrapper(
        buffer,
        encoding,
        errors="backslashreplace",
        line_buffering=not buffered,
        write_through=unbuffered,
    )


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
