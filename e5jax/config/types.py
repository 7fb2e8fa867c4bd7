"""What a field of the configuration may hold: its type, a least value, one of several. Raises ConfigError naming the field."""

import dataclasses
import math
import types
import typing
from collections.abc import Sequence
from typing import Literal

from e5jax.errors import ConfigError

Tree = typing.TypeVar("Tree")  # of dataclasses: a whole configuration


def at_least(path: str, value: float, least: int) -> None:
    """Also refuses what is not a number."""
    if not value >= least:
        raise ConfigError(f"{path}={value}: must be at least {least}")


def above_zero(path: str, value: float) -> None:
    """Above 0 and finite."""
    if not 0 < value < math.inf:
        raise ConfigError(f"{path}={value}: must be above 0 and finite")


def one_of(path: str, value: object, allowed: Sequence[object]) -> None:
    """Names what is allowed."""
    if value not in allowed:
        raise ConfigError(f"{path}: {value!r} is not one of {', '.join(map(str, allowed))}")


def without_none(hint: object) -> object:
    """`X | None` -> `X`."""
    if isinstance(hint, types.UnionType):
        return next(arg for arg in typing.get_args(hint) if arg is not types.NoneType)
    return hint


def named(hint: object) -> object:
    """`dict[str, X]` -> `X`; None for anything else."""
    return typing.get_args(hint)[1] if typing.get_origin(hint) is dict else None


def items(hint: object) -> object:
    """`tuple[X, ...]` -> `X`; None for anything else."""
    return typing.get_args(hint)[0] if typing.get_origin(hint) is tuple else None


def check_types(node: object, path: str) -> None:
    """Every field of a tree of dataclasses holds what its annotation says."""
    for name, hint in typing.get_type_hints(type(node)).items():
        _check_type(getattr(node, name), hint, f"{path}.{name}")


def _check_type(value: object, hint: object, at: str) -> None:
    if typing.get_origin(hint) is Literal:
        one_of(at, value, typing.get_args(hint))
    elif (each := named(hint)) is not None:
        if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
            raise ConfigError(f"{at}={value!r}: must be a dict of names")
        for key, part in value.items():
            _check_type(part, each, f"{at}.{key}")
    elif dataclasses.is_dataclass(inner := without_none(hint)):
        if value is not None or inner is hint:
            _check_tree(value, typing.cast(type, inner), at)
    elif dataclasses.is_dataclass(item := items(hint)) and isinstance(value, tuple):
        for i, part in enumerate(value):
            _check_type(part, item, f"{at}[{i}]")
    elif not _matches(value, hint):
        kind = hint if typing.get_origin(hint) else getattr(hint, "__name__", hint)
        raise ConfigError(f"{at}={value!r}: must be {kind}, not {type(value).__name__}")


def _check_tree(value: object, tree: type, at: str) -> None:
    if not isinstance(value, tree):
        raise ConfigError(f"{at}={value!r}: must be a {tree.__name__}")
    check_types(value, at)


def _matches(value: object, hint: object) -> bool:
    if isinstance(hint, types.UnionType):
        return any(_matches(value, arg) for arg in typing.get_args(hint))
    if typing.get_origin(hint) is tuple:
        return isinstance(value, tuple) and all(
            _matches(item, typing.get_args(hint)[0]) for item in value
        )
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, typing.cast(type, hint))
