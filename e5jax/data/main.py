"""`e5jax data ACTION`: the options of each action, and what it runs.

An action is one function here that adds its parser and one that runs it, which imports what it needs when it runs:
`e5jax --help` waits for no library.
"""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from e5jax.errors import ConfigError

if TYPE_CHECKING:
    Actions = argparse._SubParsersAction[argparse.ArgumentParser]

Go = Callable[[argparse.Namespace], int | None]  # the exit code, None for 0


def add_actions(stage: argparse.ArgumentParser) -> None:
    """Adds all actions to the parser of `e5jax data`, which without one of them builds the data of a config."""
    actions = stage.add_subparsers(dest="action", metavar="ACTION")
    _add_convert(actions)
    stage.set_defaults(refuse=lambda: stage.error(f"--config=FILE is missing; or name an action: {', '.join(actions.choices)}"))


def _action(actions: "Actions", name: str, go: Go, text: str) -> argparse.ArgumentParser:
    """The parser of an action that takes no configuration."""

    def checked(args: argparse.Namespace, overrides: Sequence[str]) -> int | None:
        if given := [*overrides, *([f"--config={args.config}"] if args.config else [])]:
            raise ConfigError(f"{given[0]}: `e5jax data {name}` takes no --config")
        return go(args)

    made = actions.add_parser(name, help=text, description=text, allow_abbrev=False)
    made.set_defaults(go=checked)
    return made


def _add_convert(actions: "Actions") -> None:
    text = "writes data in any format that docs/data.md lists as JSONL, and beside it what was left out and why"
    action = _action(actions, "convert", _convert, text)
    action.add_argument("--from", dest="format", default="auto", metavar="FORMAT", help="its name (default: %(default)s)")
    action.add_argument("--input", type=Path, required=True, metavar="PATH", help="file or folder; of datasets also owner/name")
    action.add_argument("--output", type=Path, required=True, metavar="FILE", help="JSONL file to write; replaced if it is there")
    action.add_argument("--instruction", default="", metavar="TEXT", help="bare task, for formats that have none")
    action.add_argument("--language", default="", metavar="CODE", help="ISO code, for formats that have none")
    action.add_argument("--source", default="", metavar="NAME", help="name of the set (default: that of the file)")
    action.add_argument("--split", default="train", metavar="NAME", help="of beir, msmarco and datasets (default: %(default)s)")
    columns = "columns of tables: query=title,positive=body"
    action.add_argument("--columns", default="", metavar="OURS=THEIRS,…", help=columns)
    action.add_argument("--ratio", type=float, metavar="X", help="most decompressed bytes per compressed one (default: 200)")


def _convert(args: argparse.Namespace) -> None:
    from e5jax.data.convert import convert, rejects_of
    from e5jax.data.readers.outcome import Limits, Options

    pairs = [pair.partition("=") for pair in args.columns.split(",") if pair]
    limits = Limits() if args.ratio is None else Limits(ratio=args.ratio)
    columns = {ours: theirs for ours, _, theirs in pairs}
    options = Options(args.instruction, args.language, args.source, args.split, columns, limits)
    print(convert(args.input, args.output, args.format, options))
    print(f"data: {args.output}; what was left out: {rejects_of(args.output)}", flush=True)
