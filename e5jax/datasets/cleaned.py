"""The folder that `e5jax data clean` writes; reading it needs none of the packages that cleaning needs."""

from pathlib import Path
from typing import Any

from e5jax.errors import ConfigError, RecordError
from e5jax.jsonl import parse_object

DATA, REMOVED, REPORT = "data", "removed.jsonl", "clean.json"


def read_report(path: Path) -> dict[str, Any]:
    """The content of a `clean.json`. Raises ConfigError if it is not one."""
    try:
        report = parse_object(path.read_bytes())
    except RecordError as error:
        raise ConfigError(f"{path}: {error}") from error
    missing = {"examples", "kept", "rejected", "removed"} - set(report)
    evaluation = report.get("evaluation", {})
    tasks = evaluation.values() if isinstance(evaluation, dict) else [evaluation]
    if not all(isinstance(task, dict) and isinstance(task.get("removed"), int) for task in tasks):
        missing.add("`removed` of a task in `evaluation`")
    if missing:
        raise ConfigError(
            f"{path}: not a report of `e5jax data clean`: it lacks {', '.join(sorted(missing))}"
        )
    return report
