"""YAML, as much of it as job descriptions need. Texts are always quoted as JSON does, so that none can be anything else."""

import json
from collections.abc import Iterator


def to_yaml(value: object) -> str:
    """A document of dicts, lists, texts, numbers and truth values."""
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
    return (
        name
        if name.replace("-", "").replace(".", "").replace("/", "").replace("_", "").isalnum()
        else _scalar(name)
    )


def _scalar(value: object) -> str:
    """As JSON writes it; but characters beyond the first 65,536 are one escape in YAML, and two in JSON."""
    return "".join(
        c if " " <= c <= "~" else f"\\u{ord(c):04x}" if ord(c) < 0x1_0000 else f"\\U{ord(c):08x}"
        for c in _json(value)
    )


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)
