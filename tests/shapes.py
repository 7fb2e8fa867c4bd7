"""The type checker of the tests: arrays have the shapes and dtypes that annotations state.

`conftest.py` applies it to every function of e5jax that the tests import. Functions without an array
in their annotations stay as they are.
"""

import inspect
from collections.abc import Callable, Iterator
from typing import Any, Self, TypeVar, get_args

from beartype import BeartypeConf, beartype
from jaxtyping import AbstractArray

Function = TypeVar("Function", bound=Callable)
_CONF = BeartypeConf(is_pep484_tower=True)  # an int is a float


def check(function: Function) -> Function:
    """Checks arguments and result at each call if an annotation has a shape."""
    hints = inspect.get_annotations(function)
    if not any(map(_is_array, _parts(*hints.values()))):
        return function
    # What beartype cannot check outside of a class, or at run time, is not checked.
    function.__annotations__ = {
        name: Any if any(map(_is_unchecked, _parts(hint))) else hint for name, hint in hints.items()
    }
    return beartype(conf=_CONF)(function)


def _is_array(hint: object) -> bool:
    return isinstance(hint, type) and issubclass(hint, AbstractArray)


def _is_unchecked(hint: object) -> bool:
    protocol = getattr(hint, "_is_protocol", False) and not getattr(
        hint, "_is_runtime_protocol", False
    )
    return hint is Self or protocol


def _parts(*hints: object) -> Iterator[object]:
    for hint in hints:
        yield hint
        yield from _parts(*get_args(hint))
