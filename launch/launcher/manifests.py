"""A YAML writer for job descriptions. Strings are always quoted, as in JSON."""

import json
import re
from collections.abc import Iterator


def to_yaml(value: object) -> str:
    """A document of dicts, lists, strings, numbers and booleans."""
    return "\n".join(_lines(value)) + "\n"


def _lines(value: object) -> Iterator[str]:
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _entry(f"{_key(name)}:", inner, "  ")
    elif isinstance(value, list):
        for inner in value:
            first, *rest = _lines(inner)
            yield f"- {first}"
            yield from (f"  {line}" for line in rest)
    else:
        yield _scalar(value)


def _entry(head: str, value: object, indent: str) -> Iterator[str]:
    if isinstance(value, dict | list) and value:
        yield head
        yield from (f"{indent}{line}" for line in _lines(value))
    else:
        yield f"{head} {_scalar(value)}"


def _key(name: str) -> str:
    return name if re.fullmatch(r"[\w./-]+", name) else _scalar(name)


def _scalar(value: object) -> str:
    """A value as JSON; characters beyond U+FFFF are one escape in YAML but two in JSON."""
    return "".join(
        c if " " <= c <= "~" else f"\\u{ord(c):04x}" if ord(c) < 0x1_0000 else f"\\U{ord(c):08x}"
        for c in json.dumps(value, ensure_ascii=False)
    )
