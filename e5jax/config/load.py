"""Reads a config file and its overrides.

A config file is Python with `get_config()` that returns a tree of dataclasses, a `Config` for a run; overrides are
`--config.optim.learning_rate=3e-4` (ml_collections.config_flags). Everything that is wrong is a `ConfigError`, raised before
any device is touched.
"""

import dataclasses
import difflib
import runpy
import sys
import traceback
import typing
from collections.abc import Callable, Sequence
from pathlib import Path

from absl import flags
from ml_collections import config_flags

from e5jax.config import Config
from e5jax.config.types import Tree, named, without_none
from e5jax.config.validate import validate
from e5jax.errors import ConfigError

# What a config file that is wrongly written raises.
MISTAKES = (
    *(SyntaxError, ImportError, NameError, AttributeError),
    *(TypeError, ValueError, LookupError, ArithmeticError, OSError),
)


class _Scalar(flags.ArgumentParser):
    """Reads one value. `none` is None; `validate` says where that may not be."""

    def __init__(self, read: Callable[[typing.Any], object], kind: str):
        self._read, self._kind = read, kind

    def parse(self, argument: typing.Any) -> object:
        if str(argument).lower() == "none":
            return None
        try:
            return self._read(argument)
        except ValueError as error:
            raise ValueError(f"must be {self._kind}") from error


config_flags.register_flag_parser_for_type(int, _Scalar(int, "an integer"))
config_flags.register_flag_parser_for_type(float, _Scalar(float, "a number"))
config_flags.register_flag_parser_for_type(
    bool, _Scalar(flags.BooleanParser().parse, "true or false")
)
# A Literal is parsed as the string it is; `validate` names the allowed values.
config_flags.register_flag_parser_for_type(typing.Literal, flags.ArgumentParser())


def load(path: str, overrides: Sequence[str] = ()) -> Config:
    """A run's configuration: reads the file, applies `--config.x.y=v` overrides and validates the result."""
    return load_tree(Config, validate, path, overrides)


def load_tree(
    tree: type[Tree], check: Callable[[Tree], object], path: str, overrides: Sequence[str] = ()
) -> Tree:
    """The same for any tree of dataclasses and its check."""
    config = _read(tree, path)
    for override in overrides:
        _check_override(tree, override, config)
    argv = ["e5jax", *overrides]
    values = flags.FlagValues()
    try:
        config_flags.DEFINE_config_dataclass("config", config, flag_values=values, sys_argv=argv)
        rest = values(argv)[1:]
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"--config={path}: {_one_line(error)}") from error
    if rest:
        raise ConfigError(f"{rest[0]}: not an override; write --config.field=value as one word")
    check(values.config)
    return values.config


def _read(tree: type[Tree], path: str) -> Tree:
    """Runs the file and its `get_config`."""
    name = tree.__name__
    if not Path(path).is_file():
        raise ConfigError(
            f"--config={path}: there is no such file; see configs/ for the ones that come with e5jax"
        )
    folder = str(Path(path).resolve().parent)
    sys.path.insert(0, folder)  # a variant imports what it varies, from beside it
    try:
        names = runpy.run_path(path)
        if "get_config" not in names:
            raise ConfigError(
                f"--config={path}: there is no get_config() in it; define one that returns a {name}"
            )
        config = names["get_config"]()
    except ConfigError:
        raise
    except MISTAKES as error:
        lines = [
            f"line {frame.lineno}: "
            for frame in traceback.extract_tb(error.__traceback__)
            if frame.filename == path
        ]
        home = tree.__module__.replace(".", "/")
        fix = (
            f"; the fields are those in {home}.py"
            if isinstance(error, AttributeError | TypeError)
            else ""
        )
        where = lines[-1] if lines else ""
        raise ConfigError(
            f"--config={path}: {where}{type(error).__name__}: {' '.join(str(error).split())}{fix}"
        ) from error
    finally:
        sys.path.remove(folder)
    if not isinstance(config, tree):
        raise ConfigError(
            f"--config={path}: get_config() returned {type(config).__name__}; return a {name}"
        )
    return config


def _check_override(tree: type, override: str, config: object) -> None:
    """Walks the tree along `--config.a.b`, so that a misspelt field is answered with its nearest neighbour."""
    path = override.split("=", 1)[0].removeprefix("--").removeprefix("no").removeprefix("config.")
    holder: object = tree
    value: object = config
    for i, name in enumerate(names := path.split(".")):
        if isinstance(value, dict):
            hints = dict.fromkeys(value, named(holder))
        elif dataclasses.is_dataclass(holder):
            hints = typing.get_type_hints(holder)
        else:
            raise ConfigError(f"{override}: {'.'.join(names[:i])} has no fields of its own")
        if name not in hints:
            where = ".".join(["config", *names[:i]])
            near = difflib.get_close_matches(name, hints, n=1)
            fix = f"did you mean {near[0]}?" if near else f"it has {', '.join(hints)}"
            raise ConfigError(f"{override}: {where} has no field {name!r}; {fix}")
        value = (
            value[name] if isinstance(value, dict) else getattr(value, name, None)
        )  # None: below a group that is not there
        holder = without_none(hints[name])


def _one_line(error: BaseException) -> str:
    return " ".join(str(error.args[0] if error.args else error).split())
