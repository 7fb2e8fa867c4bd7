"""Command line options from dataclasses: names, types and defaults of the fields, help from `Help`."""

import argparse
import dataclasses
import types
from collections.abc import Callable
from pathlib import Path
from typing import (
    Any,
    ClassVar,
    Literal,
    NamedTuple,
    Protocol,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)


class Options(Protocol):
    """A dataclass."""

    __dataclass_fields__: ClassVar[dict[str, Any]]


T = TypeVar("T", bound=Options)


class Help(NamedTuple):
    """Describes an option, as in `field: Annotated[int, Help("number of texts", "N")] = 10`."""

    text: str
    metavar: str | None = None
    exclusive: str = ""  # options of the same name exclude each other
    required: bool = False  # one of these exclusive options is needed


def add_options(parser: argparse.ArgumentParser, options: type[Options]) -> None:
    """Adds an option for each field of a dataclass.

    A field without a default is required; `bool` is a flag (`--no-NAME` if it is true by default);
    `Literal` has choices; `tuple[int, ...]` and tuples of literals are separated by commas; other
    tuples may be given several times.
    """
    groups: dict[str, Any] = {}
    hints = get_type_hints(options, include_extras=True)
    for field in dataclasses.fields(options):
        kind, about = get_args(hints[field.name])
        target: Any = parser
        if about.exclusive and about.exclusive not in groups:
            groups[about.exclusive] = parser.add_mutually_exclusive_group(required=about.required)
        if about.exclusive:
            target = groups[about.exclusive]
        flag = f"--{'no-' if field.default is True else ''}{field.name.replace('_', '-')}"
        target.add_argument(flag, dest=field.name, **_arguments(kind, field.default, about))


def read_options(options: type[T], args: argparse.Namespace) -> T:
    """The dataclass with the values of a parsed command line."""
    names = [field.name for field in dataclasses.fields(options)]
    return options(**{name: getattr(args, name) for name in names})


def _arguments(kind: Any, default: Any, about: Help) -> dict[str, Any]:
    if isinstance(default, bool):
        return {"action": f"store_{not default}".lower(), "help": about.text}
    if get_origin(kind) in (Union, types.UnionType):  # X | None
        (kind,) = (one for one in get_args(kind) if one is not type(None))
    shared: dict[str, Any] = {"help": about.text, "metavar": about.metavar}
    if default is dataclasses.MISSING:
        shared["required"] = True
    else:
        shared["default"] = default
        if default not in (None, "", ()):
            shown = ",".join(default) if isinstance(default, tuple) else "%(default)s"
            shared["help"] = f"{about.text} (default: {shown})"
    if get_origin(kind) is tuple:
        return shared | _several(get_args(kind)[0], default)
    if get_origin(kind) is Literal:
        choices = get_args(kind)
        return shared | {"choices": choices, "metavar": None}
    return shared | {"type": kind}


def _several(kind: Any, default: Any) -> dict[str, Any]:
    if get_origin(kind) is Literal or kind is int:
        return {"type": _comma_separated(kind)}
    if kind is Path:
        return {"nargs": "+", "action": "extend", "type": Path, "default": list(default)}
    return {"action": "append", "default": list(default)}


def _comma_separated(kind: Any) -> Callable[[str], tuple[Any, ...]]:
    def parse(text: str) -> tuple[Any, ...]:
        if kind is int:
            return tuple(map(int, text.split(",")))
        names = tuple(text.split(","))
        if unknown := [name for name in names if name not in get_args(kind)]:
            choices = ", ".join(get_args(kind))
            raise argparse.ArgumentTypeError(f"{unknown[0]!r} is not one of {choices}")
        return names

    parse.__name__ = "numbers"  # argparse names the type in its error
    return parse
