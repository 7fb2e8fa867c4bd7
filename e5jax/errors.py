"""What stops a run, each with its exit code."""

import errno
import os
import sys
import traceback

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
