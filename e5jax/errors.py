"""What stops a run, each with its exit code."""

DONE, ERROR, CONFIG = 0, 1, 3


class ConfigError(ValueError):
    """A configuration field, value, option or data file is wrong. Says which, and the fix; exit code 3."""


class RecordError(ValueError):
    """A record cannot be used. Says why; whoever reads the file adds the place."""


class RunError(RuntimeError):
    """A run cannot go on. Says where and why; exit code 1."""


class StoppedError(Exception):
    """A run was told to stop, and has saved what it had; exit code 75."""
