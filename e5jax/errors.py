"""What stops a run, each with its exit code."""

import sys

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


CODES: dict[type[BaseException], int] = {ConfigError: CONFIG, RunError: ERROR, StoppedError: STOPPED, KeyboardInterrupt: ERROR}


def report(error: BaseException) -> int:
    """Says in one line what stopped a run, if it is one of `CODES`, and returns its exit code."""
    print(f"e5jax: {'interrupted' if isinstance(error, KeyboardInterrupt) else error}", file=sys.stderr, flush=True)
    return next(code for kind, code in CODES.items() if isinstance(error, kind))
