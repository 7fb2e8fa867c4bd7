"""JSON from files that others wrote: what is read is plain JSON, with every name once, or it is refused with the reason."""

import json
from typing import Any

from e5jax.errors import RecordError


def parse_object(line: str | bytes) -> dict[str, Any]:
    """One line that holds one JSON object. Raises RecordError for anything else."""
    values = parse_value(line)
    if not isinstance(values, dict):
        raise RecordError("not a JSON object")
    return values


def parse_value(line: str | bytes) -> Any:
    """One line that holds one JSON value. Raises RecordError for wrong UTF-8, NaN, a name twice, and nesting without end."""
    try:
        # json.loads would take UTF-16 too, and surrogates in bytes.
        return STRICT.decode(line.decode("utf-8") if isinstance(line, bytes) else line)
    except RecordError:
        raise
    except UnicodeDecodeError as error:
        raise RecordError(f"not UTF-8: {error.reason} at byte {error.start}") from error
    except ValueError as error:
        raise RecordError(f"not JSON: {error}") from error
    except RecursionError as error:
        raise RecordError("nested too deeply") from error


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise RecordError(f"a name occurs twice in one object: {twice!r}")
    return values


def _no_constant(name: str) -> None:
    raise RecordError(f"not JSON: {name} is no number")


STRICT = json.JSONDecoder(object_pairs_hook=_once, parse_constant=_no_constant)
