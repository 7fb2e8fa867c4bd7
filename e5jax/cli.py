"""`e5jax STAGE`: the commands.

Exit codes: 0 done, 1 error, 2 unknown command or option, 3 configuration or data, 75 stopped and
saved, 99 the watchdog ended a hung run. After 75 and 99 the same command resumes.
"""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from e5jax.config.commands import (
    CONFIG,
    RUN,
    CalibrateOptions,
    CompactOptions,
    EncodeOptions,
    EvalOptions,
    ExportOptions,
    MineOptions,
    PlanOptions,
    SynthOptions,
)
from e5jax.config.load import load
from e5jax.config.options import add_options, read_options
from e5jax.datasets.commands import add_actions
from e5jax.distributed.heartbeat import FILE, Heartbeat
from e5jax.distributed.process import read_process_info
from e5jax.distributed.signals import Signals, ignore
from e5jax.errors import (
    DONE,
    ERROR,
    REPORTED,
    ConfigError,
    exit_code,
    name_path,
    open_streams,
    report,
)
from e5jax.mine.settings import Mining
from e5jax.versions import commit, needed, optional, versions
from e5jax.workdir.directory import DEFAULT_RUNS, Workdir, read_config
from e5jax.workdir.outputs import check_writable

Run = Callable[[argparse.Namespace, list[str]], int | None]


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command line and returns its exit code; an error of the user is one line."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    args = argparse.Namespace()
    try:
        _check_encoding(arguments)
        overrides = [word for word in arguments if word.startswith(("--config.", "--noconfig."))]
        parser().parse_args([word for word in arguments if word not in overrides], args)
        if overrides and "config" not in args:
            raise ConfigError(f"{overrides[0]}: `e5jax {args.stage}` takes no --config")
        for option in ("output", "vectors"):  # before hours of work
            if (path := getattr(args, option, None)) is not None:
                check_writable(path, f"--{option}")
        with needed(args.stage):
            return args.run(args, overrides) or DONE
    except REPORTED as error:
        folder = getattr(args, "output", None) or getattr(args, "workdir", None)
        if isinstance(error, OSError) and folder:
            name_path(error, folder)
        return report(error)


def command() -> None:
    """The console script."""
    open_streams()
    code = exit_code(main)
    ignore()  # a signal that arrives now must not change the exit code
    if code == ERROR:  # without waiting minutes for Orbax's threads after a failed save
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def _check_encoding(arguments: Sequence[str]) -> None:
    """Refuses arguments with undecodable bytes, which could fail later when they are printed."""
    for word in arguments:
        if not word.isascii() and any("\ud800" <= letter <= "\udfff" for letter in word):
            raise ConfigError(
                f"{word!a}: is not text in this terminal's encoding "
                f"({sys.getfilesystemencoding()}); set LC_ALL=C.UTF-8, or rename the file"
            )


def parser() -> argparse.ArgumentParser:
    """All commands and their options."""
    top = argparse.ArgumentParser(
        prog="e5jax", description="Turns an open language model into a text embedder."
    )
    version = "print the commit and the versions of all packages"
    top.add_argument("--version", action=_Version, nargs=0, help=version)
    commands = top.add_subparsers(dest="stage", metavar="STAGE", required=True)

    def add(name: str, run: Run, about: str, *options: type[Any]) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=about, description=about, allow_abbrev=False)
        added.set_defaults(run=run, refuse=added.error)
        for each in options:
            add_options(added, each)
        return added

    _add_run(add("run", _run_all, "run all stages of a config; finished ones are skipped"))
    data = add("data", _data, "build the training data of a config, or work on data files")
    _add_run(data, required=False)
    add_actions(data)
    _add_run(add("train", _train, "train; the same command resumes"))
    add("export", _export, "write a verified Hugging Face folder", ExportOptions)
    add("eval", _eval, "run MTEB tasks on a model folder", EvalOptions)
    about = "measure quality and speed of search on compressed vectors"
    add("compact", _compact, about, CompactOptions)
    checkpoints = add("checkpoints", _checkpoints, "list, verify or show the checkpoints of a run")
    actions = "verify reads every byte; show prints the contents of one checkpoint"
    checkpoints.add_argument("action", choices=("list", "verify", "show"), help=actions)
    checkpoints.add_argument("--workdir", type=Path, required=True, metavar="DIR", help=RUN.text)
    step = "step to show (default: the newest)"
    checkpoints.add_argument("--step", type=int, metavar="N", help=step)
    add("encode", _encode, "embed the texts of a file; the same command resumes", EncodeOptions)
    about = "measure the ranges of int8 vectors on texts, for the model's folder"
    add("calibrate", _calibrate, about, CalibrateOptions)
    about = "mine hard negatives with a model; the same command resumes"
    add("mine", _mine, about, MineOptions, Mining)
    about = "generate training examples with a language model; the same command resumes"
    add("synth", _synth, about, SynthOptions)
    doctor = add("doctor", _doctor, "check this machine: versions, memory, disks, network, devices")
    workdir = f"{RUN.text} (default: %(default)s)"
    doctor.add_argument("--workdir", type=Path, default=DEFAULT_RUNS, metavar="DIR", help=workdir)
    about = "compile a config's training step for another machine and print what it needs"
    add("plan", _plan, about, PlanOptions)
    return top


def _add_run(stage: argparse.ArgumentParser, required: bool = True) -> None:
    stage.add_argument("--config", required=required, metavar="FILE", help=CONFIG.text)
    workdir = f"{RUN.text} (default: runs/ and the config's name)"
    stage.add_argument("--workdir", type=Path, metavar="DIR", help=workdir)
    if required:
        allow = "resume even if configuration or data changed; record what changed"
        stage.add_argument("--allow-change", action="store_true", help=allow)


# A command imports what it needs when it runs: `e5jax --help` does not load JAX, training not torch.


def _run(args: argparse.Namespace, overrides: list[str], only: str | None = None) -> None:
    config = load(args.config, overrides)
    workdir = Workdir(args.workdir or DEFAULT_RUNS / Path(args.config).stem)
    info = read_process_info(os.environ)
    signals = Signals(joins=info.processes > 1)
    with signals.listening():  # before JAX is imported, which takes seconds
        from e5jax.distributed.coordination import Process
        from e5jax.pipeline import run

        process = Process(info, Heartbeat(os.environ.get(FILE)), signals)
        run(config, workdir, only, process, getattr(args, "allow_change", False))


def _run_all(args: argparse.Namespace, overrides: list[str]) -> None:
    _run(args, overrides)


def _data(args: argparse.Namespace, overrides: list[str]) -> None:
    if args.config is None:
        args.refuse()
    _run(args, overrides, only="data")


def _train(args: argparse.Namespace, overrides: list[str]) -> None:
    _run(args, overrides, only="train")


def _export(args: argparse.Namespace, _: list[str]) -> None:
    options, workdir = read_options(ExportOptions, args), Workdir(args.workdir)
    config = read_config(workdir)
    config.export.dtype = options.dtype or config.export.dtype
    from e5jax.export.push import check_name, push
    from e5jax.export.trained_model import Choice
    from e5jax.pipeline import export_to

    if options.push_to_hub:
        check_name(options.push_to_hub)
    if not options.shard_gigabytes > 0:
        raise ConfigError(f"--shard-gigabytes={options.shard_gigabytes}: must be above 0")
    shard_bytes = int(options.shard_gigabytes * 1e9)
    choice = Choice(options.format, options.base_name, shard_bytes, options.verify)
    export_to(config, workdir, options.output, choice)
    if options.push_to_hub:
        address = push(options.output, options.push_to_hub, private=options.private)
        print(f"export: {address}", flush=True)


def _checkpoints(args: argparse.Namespace, _: list[str]) -> int:
    from e5jax.checkpoint.retention import describe, listing

    workdir = Workdir(args.workdir)
    folder = workdir.checkpoints
    if workdir.config.is_file():
        folder = workdir.checkpoints_of(read_config(workdir).checkpoint)
    if not folder.is_dir():
        raise ConfigError(f"--workdir={args.workdir}: not the directory of a training run")
    if args.action == "show":
        print(describe(folder, args.step))
        return DONE
    lines, sound = listing(folder, verify=args.action == "verify")
    print("\n".join(lines) or "no checkpoints")
    return DONE if sound else ERROR


def _eval(args: argparse.Namespace, _: list[str]) -> int:
    options = read_options(EvalOptions, args)
    if not (options.report or options.tasks or options.benchmark):
        args.refuse("one of --tasks and --benchmark is needed; or --report")
    from e5jax.eval.commands import main as evaluate

    return evaluate(options)


def _encode(args: argparse.Namespace, _: list[str]) -> int:
    options = read_options(EncodeOptions, args)
    from e5jax.inference.encode import main as encode

    return encode(options)


def _calibrate(args: argparse.Namespace, _: list[str]) -> int:
    options = read_options(CalibrateOptions, args)
    from e5jax.inference.calibrate import main as calibrate

    return calibrate(options)


def _mine(args: argparse.Namespace, _: list[str]) -> int:
    options, rules = read_options(MineOptions, args), read_options(Mining, args)
    from e5jax.mine.mine import main as mine

    corpus = None if options.corpus == "from-records" else Path(options.corpus)
    return mine(options.model, options.input, corpus, options.output, rules)


def _compact(args: argparse.Namespace, _: list[str]) -> int:
    options = read_options(CompactOptions, args)
    from e5jax.eval.quantization_study import main as compact

    return compact(options)


def _synth(args: argparse.Namespace, overrides: list[str]) -> int:
    import gc

    from e5jax.synth.commands import main as synth

    gc.freeze()  # scanning the imported libraries again and again takes a sixth of a run
    output = args.output or DEFAULT_RUNS / Path(args.config).stem
    return synth(args.config, overrides, output, args.dry_run)


def _plan(args: argparse.Namespace, overrides: list[str]) -> int:
    options = read_options(PlanOptions, args)
    from e5jax.plan.topology import parse_topology, prepare

    load(options.config, overrides)
    topology = parse_topology(options.topology, options.slices)
    prepare(topology)  # before JAX is imported
    from e5jax.plan.commands import main as plan

    return plan(options, overrides, topology)


def _doctor(args: argparse.Namespace, _: list[str]) -> int:
    from e5jax.distributed.doctor import main as doctor

    return doctor(args.workdir)


class _Version(argparse.Action):
    """Prints the versions, which are looked up only then."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        packages = versions()
        print(f"e5jax {packages.pop('e5jax')} (commit {commit()})")
        packages |= optional()
        print(", ".join(f"{name} {version}" for name, version in packages.items()))
        parser.exit()
