"""Texts out of JSON values that may be anything."""

from collections.abc import Mapping
from typing import Any

from e5jax.errors import RecordError


def texts(values: Mapping[str, Any], name: str) -> tuple[str, ...]:
    """The strings of a field that holds one or a list of them; a missing field and null hold none."""
    value = values.get(name)
    if value is None:
        return ()
    if isinstance(value, str):
        return (value,)
    if not isinstance(value, list | tuple):
        raise RecordError(
            f"{name}: must be a string or a list of strings: not {type(value).__name__}"
        )
    return tuple(value)


def passages(values: Mapping[str, Any], name: str) -> tuple[str, ...]:
    """The texts of a field that holds a list of passages."""
    value = values.get(name) or []
    if not isinstance(value, list | tuple):
        raise RecordError(f"{name}: must be a list of passages: not {type(value).__name__}")
    return tuple(passage(entry, name) for entry in value)


def passage(value: Any, name: str) -> str:
    """`title text` of an object with these fields, as in E5 (arXiv 2401.00368); a string is a passage without title."""
    if isinstance(value, str):
        return value
    if not isinstance(value, dict):
        raise RecordError(
            f"{name}: must hold objects with title and text: not {type(value).__name__}"
        )
    title, text = value.get("title") or "", value.get("text")
    if not isinstance(title, str) or not isinstance(text, str):
        raise RecordError(
            f"{name}: needs a text, and a title or none: text is {type(text).__name__}"
        )
    return f"{title} {text}".strip()


def identity(values: Mapping[str, Any], name: str, default: str = "") -> str:
    """An id as text: publishers use strings and whole numbers."""
    value = values.get(name, default)
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise RecordError(f"{name}: must be a string or a whole number: not {type(value).__name__}")
    if not str(value).strip():
        raise RecordError(f"{name}: missing or empty")
    return str(value)
