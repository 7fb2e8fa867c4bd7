"""Fields of JSON files that other programs wrote, read with their types. Raises ConfigError naming file, field and value."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from e5jax.errors import ConfigError


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
        parsed = float(value) if isinstance(value, str | int | float) and not isinstance(value, bool) else math.nan
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
