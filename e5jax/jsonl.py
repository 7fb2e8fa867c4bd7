"""JSON from files that others wrote: what is read is plain JSON, with every name once, or it is refused with the reason."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from e5jax.errors import ConfigError, RecordError


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


def read_json(path: Path) -> Any:
    """The content of a JSON file. Raises ConfigError."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: not JSON ({error})") from error


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object of a file. Raises ConfigError."""
    values = read_json(path)
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: not a JSON object")
    return values


def positive(config: Mapping[str, Any], name: str, at: str) -> int | None:
    """A whole number of at least 1, also one written as a string; None where there is none. Raises ConfigError."""
    value = number(config, name, at)
    if value is not None and (value < 1 or value != int(value)):
        raise ConfigError(f"{at}: {name}={config[name]!r}; must be a whole number of at least 1")
    return None if value is None else int(value)


def number(config: Mapping[str, Any], name: str, at: str) -> float | None:
    """A finite number, also one written as a string; None where there is none. Raises ConfigError."""
    value = config.get(name)
    if value is None:
        return None
    try:
        parsed = (
            float(value)
            if isinstance(value, str | int | float) and not isinstance(value, bool)
            else math.nan
        )
    except (ValueError, OverflowError):
        parsed = math.nan
    if not math.isfinite(parsed):
        raise ConfigError(f"{at}: {name}={value!r}; must be a number")
    return parsed


def flag(config: Mapping[str, Any], name: str, default: bool, at: str) -> bool:
    """True or false. Raises ConfigError."""
    value = config.get(name)
    if value is None:
        return default
    if not isinstance(value, bool):
        raise ConfigError(f"{at}: {name}={value!r}; must be true or false")
    return value


def token_of(config: Mapping[str, Any], name: str, at: str) -> str | None:
    """A special token of a tokenizer_config.json, which is a string or an object with `content`. Raises ConfigError."""
    value = config.get(name)
    text = value.get("content") if isinstance(value, dict) else value
    if text is not None and not isinstance(text, str):
        raise ConfigError(f"{at}: {name}={value!r}; must be a text")
    return text
