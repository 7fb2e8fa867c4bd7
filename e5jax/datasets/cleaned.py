"""The folder that `e5jax data clean` writes. Reading it needs none of the packages that cleaning needs."""

from pathlib import Path
from typing import Any

from e5jax.errors import ConfigError, RecordError
from e5jax.jsonl import parse_object

DATA, REMOVED, REPORT = (
    "data",
    "removed.jsonl",
    "clean.json",
)  # apart, so that data/*.jsonl is all data


def read_report(path: Path) -> dict[str, Any]:
    """The content of a `clean.json`."""
    try:
        made = parse_object(path.read_bytes())
    except RecordError as error:
        raise ConfigError(f"{path}: {error}") from error
    if missing := {"examples", "kept", "rejected", "removed"} - set(made):
        raise ConfigError(
            f"{path}: no report of `e5jax data clean`: it lacks {', '.join(sorted(missing))}"
        )
    return made
