"""Reads a config file and its overrides.

A config file is Python with `get_config() -> Config`; overrides are `--config.optim.learning_rate=3e-4`
(ml_collections.config_flags). Everything that is wrong is a `ConfigError`, raised before any device is touched.
"""

import dataclasses
import difflib
import typing
from collections.abc import Sequence
from pathlib import Path

from absl import flags
from ml_collections import config_flags

from e5jax.config import Config, without_none
from e5jax.errors import ConfigError
from e5jax.validate import validate

# A Literal is parsed as the string it is; `validate` names the allowed values.
config_flags.register_flag_parser_for_type(typing.Literal, flags.ArgumentParser())  # pyright: ignore[reportArgumentType]


def load(path: str, overrides: Sequence[str] = ()) -> Config:
    """Reads a config file, applies `--config.x.y=v` overrides and validates the result."""
    if not Path(path).is_file():
        raise ConfigError(f"--config={path}: there is no such file; see configs/ for the ones that come with e5jax")
    for override in overrides:
        _check_override(override)
    argv = ["e5jax", f"--config={path}", *overrides]
    values = flags.FlagValues()
    try:
        config_flags.DEFINE_config_file("config", flag_values=values, sys_argv=argv, lock_config=False)
        rest = values(argv)[1:]
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"--config={path}: {_one_line(error)}") from error
    if rest:
        raise ConfigError(f"{rest[0]}: not an override; write --config.field=value as one word")
    if not isinstance(values.config, Config):
        raise ConfigError(f"--config={path}: get_config() returned {type(values.config).__name__}; return a Config")
    validate(values.config)
    return values.config


def _check_override(override: str) -> None:
    """Walks the tree along `--config.a.b`, so that a misspelt field is answered with its nearest neighbour."""
    path = override.split("=", 1)[0].removeprefix("--").removeprefix("no").removeprefix("config.")
    holder: object = Config
    for i, name in enumerate(names := path.split(".")):
        if not dataclasses.is_dataclass(holder):
            raise ConfigError(f"{override}: {'.'.join(names[:i])} has no fields of its own")
        hints = typing.get_type_hints(holder)
        if name not in hints:
            where = ".".join(["config", *names[:i]])
            near = difflib.get_close_matches(name, hints, n=1)
            fix = f"did you mean {near[0]}?" if near else f"it has {', '.join(hints)}"
            raise ConfigError(f"{override}: {where} has no field {name!r}; {fix}")
        holder = without_none(hints[name])


def _one_line(error: BaseException) -> str:
    return " ".join(str(error.args[0] if error.args else error).split())
