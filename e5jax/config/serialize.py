"""A configuration as JSON and back, and what differs between two."""

import dataclasses
import json
import typing
from collections.abc import Iterator

from e5jax.config import Config
from e5jax.config.types import Tree, items, named, without_none
from e5jax.errors import ConfigError


def to_json(config: typing.Any) -> str:
    """A tree of dataclasses as JSON, readable by `tree_from_json`."""
    return json.dumps(dataclasses.asdict(config), indent=2) + "\n"


def from_json(text: str | bytes) -> Config:
    """A run's `Config`."""
    return tree_from_json(Config, text)


def tree_from_json(tree: type[Tree], text: str | bytes) -> Tree:
    """Inverse of `to_json`; raises ConfigError for a field that this version does not know."""
    try:
        values = json.loads(text)
    except ValueError as error:
        raise ConfigError(f"config.json is not JSON ({error})") from error
    return _build(tree, values, "config")


def _build(cls: type, values: object, where: str) -> typing.Any:
    if not isinstance(values, dict):
        raise ConfigError(f"{where} is {values!r}, not the fields of a {cls.__name__}")
    hints = typing.get_type_hints(cls)
    if unknown := sorted(set(values) - set(hints)):
        raise ConfigError(
            f"{where} has fields this version of e5jax does not know: {', '.join(unknown)}"
        )
    made = {}
    for name, value in values.items():
        made[name] = _value(without_none(hints[name]), value, f"{where}.{name}")
    return cls(**made)


def _value(hint: object, value: typing.Any, where: str) -> typing.Any:
    if isinstance(value, dict) and (each := named(hint)) is not None:
        return {key: _value(each, item, f"{where}.{key}") for key, item in value.items()}
    if value is not None and dataclasses.is_dataclass(hint):
        return _build(typing.cast(type, hint), value, where)
    if isinstance(value, list):
        return tuple(_value(items(hint), part, f"{where}[{i}]") for i, part in enumerate(value))
    return value


def differences(old: Tree, new: Tree) -> list[str]:
    """Names the fields that differ, as `field: old -> new`."""
    a, b = fields(old), fields(new)
    return [
        f"{key}: {a.get(key)} -> {b.get(key)}" for key in sorted(a | b) if a.get(key) != b.get(key)
    ]


def fields(config: object) -> dict[str, str]:
    """Every field of a tree of dataclasses by its path, as Python writes its value."""
    return {
        key: repr(value)
        for key, value in _leaves(dataclasses.asdict(typing.cast(typing.Any, config)))
    }


def _leaves(tree: object, path: str = "config") -> Iterator[tuple[str, object]]:
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield from _leaves(value, f"{path}.{key}")
    else:
        yield path, tree
