"""The command line of `launch/*.sh`."""

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from e5jax.errors import USAGE, ConfigError
from launch.launcher.request import TARGETS, TPUS, Request, check, flag, options

RUNS = Path("runs")
CONFIG = "configs/quickstart.py"
PAPER = "--benchmark=MTEB(eng, v1)"
ACTIONS = ("status", "logs", "stop")


class Kind(NamedTuple):
    """What a script launches."""

    what: str  # its first argument
    about: str
    extras: str  # that it needs


KINDS = {
    "train": Kind("CONFIG", f"Takes a config from data to evaluation (default: {CONFIG}).", "eval"),
    "eval": Kind(
        "MODEL",
        "Runs MTEB tasks on a model folder or hub id (default: the paper's 56 tasks, on PyTorch).",
        "eval",
    ),
    "synth": Kind(
        "CONFIG",
        "Generates training examples with a language model (configs/synth_e5.py).",
        "synth",
    ),
}


def parser(script: str) -> argparse.ArgumentParser:
    """Options of `launch/SCRIPT.sh`."""
    kind = KINDS[script]
    words = {
        "train": "--config.x.y=v overrides the config; --allow-change goes on although something changed.",
        "eval": "All other options go to `e5jax eval`, whose --help has them.",
        "synth": "--config.x.y=v overrides the config; --output=DIR is the same as --workdir=DIR.",
    }[script]
    made = argparse.ArgumentParser(
        prog=f"launch/{script}.sh",
        usage=f"launch/{script}.sh [{kind.what}] [options]\n       launch/{script}.sh status|logs|stop RUN [--follow]",
        description=f"{kind.about} The same command goes on where it was. {words} launch/README.md has a page a target.",
        allow_abbrev=False,
    )
    for one in options():
        about, of = one.metadata["about"], one.metadata["of"]
        about = f"{about} [{', '.join(of)}]" if of else about
        if isinstance(one.default, bool):
            made.add_argument(flag(one.name), action="store_true", help=about)
        elif one.default == ():
            made.add_argument(
                flag(one.name),
                action="append",
                default=[],
                metavar=one.metadata["metavar"],
                help=about,
            )
        else:
            kind_of = type(one.default)
            choices = TARGETS if one.name == "target" else None
            metavar = None if choices else one.metadata["metavar"]
            made.add_argument(
                flag(one.name),
                type=kind_of,
                default=one.default,
                metavar=metavar,
                choices=choices,
                help=about,
            )
    return made


def read(script: str, argv: Sequence[str]) -> Request:
    """The request of a command line. Raises ConfigError; ends the process with 2 for what is no option."""
    arguments, made = list(argv), parser(script)
    first = "" if not arguments or arguments[0].startswith("-") else arguments.pop(0)
    if not first and script != "train" and not {"-h", "--help"} & set(arguments):
        made.print_usage(sys.stderr)
        raise SystemExit(USAGE)
    known, rest = made.parse_known_args(arguments)
    values = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in vars(known).items()
    }
    values["hosts"] = tuple(host for part in values["hosts"] for host in part.split(","))
    request = {"train": _train, "eval": _eval, "synth": _synth}[script](made, first, rest, values)
    check(request)
    return request


def _train(made: argparse.ArgumentParser, first: str, rest: list[str], values: dict) -> Request:
    config = first or CONFIG
    _refuse(made, rest, "--allow-change")
    return _named("train", values, config, ["run", f"--config={config}"], "--workdir", rest)


def _synth(made: argparse.ArgumentParser, first: str, rest: list[str], values: dict) -> Request:
    values["workdir"], rest = _output(values["workdir"], rest)
    _refuse(made, rest)
    return _named("synth", values, first, ["synth", f"--config={first}"], "--output", rest)


def _eval(_: argparse.ArgumentParser, first: str, rest: list[str], values: dict) -> Request:
    values["workdir"], rest = _output(values["workdir"], rest)
    values["workdir"] = values["workdir"] or f"runs/eval/{Path(first).name}"
    chosen = [] if any(word.startswith(("--tasks", "--benchmark")) for word in rest) else [PAPER]
    return _named("eval", values, first, ["eval", f"--model={first}", *chosen], "--output", rest)


def _output(workdir: str, rest: list[str]) -> tuple[str, list[str]]:
    """A run's directory as the stage calls it, and what is left of the words."""
    for number, word in enumerate(rest):
        if word == "--output" and number + 1 < len(rest):
            return workdir or rest[number + 1], rest[:number] + rest[number + 2 :]
        if word.startswith("--output="):
            return workdir or word.removeprefix("--output="), rest[:number] + rest[number + 1 :]
    return workdir, rest


def _refuse(made: argparse.ArgumentParser, rest: Sequence[str], *known: str) -> None:
    unknown = [
        word
        for word in rest
        if not word.startswith(("--config.", "--noconfig.")) and word not in known
    ]
    if unknown:
        made.error(f"unrecognized arguments: {' '.join(unknown)}")


def _named(
    script: str, values: dict, subject: str, words: list[str], where: str, rest: list[str]
) -> Request:
    stem = Path(subject).stem
    values["workdir"] = values["workdir"] or str(RUNS / (values["run_name"] or stem))
    values["run_name"] = values["run_name"] or slug(stem)
    if values["target"] in TPUS:
        values["platform"] = values["platform"] or "tpu"
    config = subject if words[0] != "eval" else ""
    words = [*words, f"{where}={values['workdir']}", *rest]
    return Request(
        stage=words[0], words=tuple(words), config=config, extras=KINDS[script].extras, **values
    )


def slug(name: str) -> str:
    """A name that every cloud takes. Raises ConfigError where nothing is left of it."""
    made = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:40].strip("-")
    made = made if made[:1].isalpha() else f"run-{made}".strip("-")[:40].strip("-")
    if not made:
        raise ConfigError(f"{name!r}: not a name; add --run-name=NAME")
    return made
