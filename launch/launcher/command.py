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

    subject: str  # its first argument
    about: str
    others: str  # what it does with options that the launcher does not know
    extras: str  # optional dependencies of e5jax that it needs


KINDS = {
    "train": Kind(
        "CONFIG",
        f"Runs a config from data to evaluation (default: {CONFIG}).",
        "--config.x.y=v overrides the config; --allow-change resumes although something changed.",
        "eval",
    ),
    "eval": Kind(
        "MODEL",
        "Runs MTEB tasks on a model folder or hub id (default: the paper's 56 tasks, on PyTorch).",
        "All other options go to `e5jax eval`, whose --help lists them.",
        "eval",
    ),
    "synth": Kind(
        "CONFIG",
        "Generates training examples with a language model (configs/synth_e5.py).",
        "--config.x.y=v overrides the config; --output=DIR is the same as --workdir=DIR.",
        "synth",
    ),
}


def parser(script: str) -> argparse.ArgumentParser:
    """Options of `launch/SCRIPT.sh`."""
    kind = KINDS[script]
    arguments = argparse.ArgumentParser(
        prog=f"launch/{script}.sh",
        usage=f"launch/{script}.sh [{kind.subject}] [options]\n"
        f"       launch/{script}.sh status|logs|stop RUN [--follow]",
        description=f"{kind.about} The same command resumes an interrupted run. {kind.others} "
        "launch/README.md describes each target.",
        allow_abbrev=False,
    )
    for option in options():
        about, targets = option.metadata["about"], option.metadata["targets"]
        about = f"{about} [{', '.join(targets)}]" if targets else about
        metavar = option.metadata["metavar"]
        if isinstance(option.default, bool):
            arguments.add_argument(flag(option.name), action="store_true", help=about)
        elif option.default == ():
            arguments.add_argument(
                flag(option.name), action="append", default=[], metavar=metavar, help=about
            )
        else:
            choices = TARGETS if option.name == "target" else None
            arguments.add_argument(
                flag(option.name),
                type=type(option.default),
                default=option.default,
                metavar=None if choices else metavar,
                choices=choices,
                help=about,
            )
    return arguments


def read(script: str, argv: Sequence[str]) -> Request:
    """The request of a command line. Raises ConfigError; an unknown option exits with code 2."""
    rest, options_parser = list(argv), parser(script)
    subject = "" if not rest or rest[0].startswith("-") else rest.pop(0)
    if not subject and script != "train" and not {"-h", "--help"} & set(rest):
        options_parser.print_usage(sys.stderr)
        raise SystemExit(USAGE)
    known, rest = options_parser.parse_known_args(rest)
    values = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in vars(known).items()
    }
    values["hosts"] = tuple(host for part in values["hosts"] for host in part.split(","))
    request = {"train": _train, "eval": _eval, "synth": _synth}[script](
        options_parser, subject, rest, values
    )
    check(request)
    return request


def _train(
    options_parser: argparse.ArgumentParser, config: str, rest: list[str], values: dict
) -> Request:
    config = config or CONFIG
    _refuse_unknown(options_parser, rest, "--allow-change")
    return _request("train", values, config, ["run", f"--config={config}"], "--workdir", rest)


def _synth(
    options_parser: argparse.ArgumentParser, config: str, rest: list[str], values: dict
) -> Request:
    values["workdir"], rest = _take_output(values["workdir"], rest)
    _refuse_unknown(options_parser, rest)
    return _request("synth", values, config, ["synth", f"--config={config}"], "--output", rest)


def _eval(_: argparse.ArgumentParser, model: str, rest: list[str], values: dict) -> Request:
    values["workdir"], rest = _take_output(values["workdir"], rest)
    values["workdir"] = values["workdir"] or f"runs/eval/{Path(model).name}"
    tasks = [] if any(word.startswith(("--tasks", "--benchmark")) for word in rest) else [PAPER]
    return _request("eval", values, model, ["eval", f"--model={model}", *tasks], "--output", rest)


def _take_output(workdir: str, rest: list[str]) -> tuple[str, list[str]]:
    """(the run's directory, which --output may name, the arguments without --output)."""
    for number, word in enumerate(rest):
        if word == "--output" and number + 1 < len(rest):
            return workdir or rest[number + 1], rest[:number] + rest[number + 2 :]
        if word.startswith("--output="):
            return workdir or word.removeprefix("--output="), rest[:number] + rest[number + 1 :]
    return workdir, rest


def _refuse_unknown(
    options_parser: argparse.ArgumentParser, rest: Sequence[str], *known: str
) -> None:
    overrides = ("--config.", "--noconfig.")
    unknown = [word for word in rest if not word.startswith(overrides) and word not in known]
    if unknown:
        options_parser.error(f"unrecognized arguments: {' '.join(unknown)}")


def _request(
    script: str, values: dict, subject: str, words: list[str], where: str, rest: list[str]
) -> Request:
    stem = Path(subject).stem
    values["workdir"] = values["workdir"] or str(RUNS / (values["run_name"] or stem))
    values["run_name"] = values["run_name"] or slug(stem)
    if values["target"] in TPUS:
        values["platform"] = values["platform"] or "tpu"
    return Request(
        stage=words[0],
        words=(*words, f"{where}={values['workdir']}", *rest),
        config=subject if script != "eval" else "",
        extras=KINDS[script].extras,
        **values,
    )


def slug(name: str) -> str:
    """A run name that every cloud accepts. Raises ConfigError if no letter or digit is left."""
    text = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:40].strip("-")
    text = text if text[:1].isalpha() else f"run-{text}".strip("-")[:40].strip("-")
    if not text:
        raise ConfigError(f"{name!r}: not a name; add --run-name=NAME")
    return text
