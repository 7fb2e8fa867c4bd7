"""`e5jax STAGE`: one command a stage.

Exit codes: 0 done, 1 error, 2 unknown command or option, 3 configuration or data, 75 told to stop: the same command goes on,
99 a run that hung: the same command goes on.
"""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import get_args

from e5jax.config import Config, Precision
from e5jax.config.load import load
from e5jax.datasets.commands import add_actions
from e5jax.distributed import heartbeat
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
from e5jax.versions import commit, needed, optional, versions
from e5jax.workdir.directory import DEFAULT_RUNS, Workdir, read_config
from e5jax.workdir.outputs import check_writable

PRECISIONS = get_args(Precision)


def main(argv: Sequence[str] | None = None) -> int:
    """Parses the command line and runs the stage; a wrong configuration is one line, never a traceback."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    args = argparse.Namespace()
    try:
        _check_encoding(arguments)
        overrides = [word for word in arguments if word.startswith(("--config.", "--noconfig."))]
        parser().parse_args([word for word in arguments if word not in overrides], args)
        if overrides and "config" not in args:
            raise ConfigError(f"{overrides[0]}: `e5jax {args.stage}` takes no --config")
        _check_writable(args)
        with needed(args.stage):
            return args.go(args, overrides) or DONE
    except REPORTED as error:
        folder = getattr(args, "output", None) or getattr(args, "workdir", None)
        if isinstance(error, OSError) and folder:
            name_path(error, folder)
        return report(error)


def command() -> None:
    """What the shell runs. Orbax's threads wait for minutes for a save that has failed: an error does not wait for them."""
    open_streams()
    code = exit_code(main)
    ignore()  # a notice that comes now must not change the exit code
    if code == ERROR:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def _check_encoding(arguments: Sequence[str]) -> None:
    """Refuses bytes that are no text: they would fail later, where texts are tokenised or a report is written."""
    for word in arguments:
        if not word.isascii() and any("\ud800" <= letter <= "\udfff" for letter in word):
            fix = "set LC_ALL=C.UTF-8, or rename the file"
            raise ConfigError(
                f"{word!a}: is not text in this terminal's encoding ({sys.getfilesystemencoding()}); {fix}"
            )


def _check_writable(args: argparse.Namespace) -> None:
    """Refuses a place for results that cannot be written to: else hours of work would find that out."""
    for option in ("output", "vectors"):
        if (path := getattr(args, option, None)) is not None:
            check_writable(path, f"--{option}")


def parser() -> argparse.ArgumentParser:
    """All stages and their options."""
    top = argparse.ArgumentParser(
        prog="e5jax", description="Turns an open decoder language model into a text embedder."
    )
    top.add_argument(
        "--version",
        action=_Version,
        nargs=0,
        help="prints commit and versions of what is running, and exits",
    )
    stages = top.add_subparsers(dest="stage", metavar="STAGE", required=True)

    def add(
        name: str, go: Callable[[argparse.Namespace, list[str]], int | None], text: str
    ) -> argparse.ArgumentParser:
        stage = stages.add_parser(name, help=text, description=text, allow_abbrev=False)
        stage.set_defaults(go=go)
        return stage

    _add_config(
        add("run", _all, "all stages of a config, one after the other; finished ones are skipped"),
        resumes=True,
    )
    data = add("data", _data, "builds the training data of a config; or an action on files")
    _add_config(data, required=False)
    add_actions(data)
    _add_config(add("train", _train, "trains; the same command resumes"), resumes=True)
    _add_export(
        add(
            "export",
            _export,
            "writes the newest checkpoint of a run as a Hugging Face folder, and verifies it",
        )
    )
    _add_eval(
        add(
            "eval",
            _eval,
            "runs MTEB tasks on a model folder, or writes the texts they would give a model",
        )
    )
    _add_compact(
        add(
            "compact",
            _compact,
            "measures how well and how fast vectors of fewer bytes are searched",
        )
    )
    keeper = add(
        "checkpoints",
        _checkpoints,
        "says which checkpoints a run has, whether they are sound, and what they are of",
    )
    keeper.add_argument(
        "action",
        choices=("list", "verify", "show"),
        help="verify reads every byte; show prints what one says",
    )
    keeper.add_argument(
        "--workdir", type=Path, required=True, metavar="DIR", help="directory of the run"
    )
    keeper.add_argument("--step", type=int, metavar="N", help="of show (default: the newest)")
    _add_encode(
        add("encode", _encode, "embeds the texts of a file; the same command goes on where it was")
    )
    _add_calibrate(
        add(
            "calibrate",
            _calibrate,
            "asks texts for the ranges of int8 vectors, and keeps them in the model's folder",
        )
    )
    _add_mine(
        add(
            "mine",
            _mine,
            "finds hard negatives for records with a model; the same command goes on where it was",
        )
    )
    _add_synth(
        add(
            "synth",
            _synth,
            "generates training examples with a language model; the same command goes on where it was",
        )
    )
    looks = add(
        "doctor",
        _doctor,
        "looks at this machine before a run does: versions, memory, disks, network, keys, devices",
    )
    looks.add_argument(
        "--workdir",
        type=Path,
        default=DEFAULT_RUNS,
        metavar="DIR",
        help="where the run will be (default: %(default)s)",
    )
    _add_plan(
        add(
            "plan",
            _plan,
            "compiles a config's training step for a machine that is not here, and says what it needs",
        )
    )
    return top


def _add_config(
    stage: argparse.ArgumentParser, required: bool = True, resumes: bool = False
) -> None:
    stage.add_argument(
        "--config",
        required=required,
        metavar="FILE",
        help="Python config file; --config.field=value overrides it",
    )
    stage.add_argument(
        "--workdir",
        type=Path,
        metavar="DIR",
        help="directory of the run (default: runs/ and the config's name)",
    )
    if resumes:
        allow = "goes on although configuration or data are not those of the run so far, and records the difference"
        stage.add_argument("--allow-change", action="store_true", help=allow)


def _add_encode(stage: argparse.ArgumentParser) -> None:
    stage.add_argument(
        "--model", required=True, metavar="DIR", help="Hugging Face folder or hub id of the model"
    )
    texts = "JSON lines, CSV, TSV, Parquet, or lines of text (.txt), perhaps compressed; docs/data.md has the rule"
    stage.add_argument("--input", type=Path, required=True, metavar="FILE", help=texts)
    stage.add_argument(
        "--output",
        type=Path,
        required=True,
        metavar="FILE",
        help="vectors: .npy, .safetensors or .parquet",
    )
    stage.add_argument(
        "--field",
        default="text",
        help="of JSON or column of a table, with the text (default: %(default)s)",
    )
    task = stage.add_mutually_exclusive_group()
    task.add_argument("--instruction", help="the bare task, for queries; documents have none")
    task.add_argument(
        "--prompt", metavar="NAME", help="a prompt of the folder instead, such as query"
    )
    stage.add_argument(
        "--compute",
        choices=("float32", "bfloat16"),
        help="dtype of weights and compute (default: the folder's)",
    )
    stage.add_argument(
        "--dtype",
        choices=("float32", "float16"),
        default="float32",
        help="of the output (default: %(default)s)",
    )
    stage.add_argument(
        "--dimensions",
        type=int,
        metavar="N",
        help="leading dimensions to keep (default: as the folder says)",
    )
    stage.add_argument(
        "--precision", choices=PRECISIONS, default="float32", help="of the output (docs/compact.md)"
    )
    stage.add_argument(
        "--limit", type=int, metavar="N", help="most tokens of a text (default: the folder's)"
    )
    between = "texts encoded between two savings (default: %(default)s)"
    stage.add_argument("--shard", type=int, default=16_384, metavar="N", help=between)


def _add_calibrate(stage: argparse.ArgumentParser) -> None:
    stage.add_argument(
        "--model",
        type=Path,
        required=True,
        metavar="DIR",
        help="folder of the model, which gets ranges.json",
    )
    texts = "texts like those that will be stored, in any file that `e5jax encode` reads"
    stage.add_argument("--input", type=Path, required=True, metavar="FILE", help=texts)
    stage.add_argument(
        "--field",
        default="text",
        help="of JSON or column of a table, with the text (default: %(default)s)",
    )
    stage.add_argument(
        "--dimensions",
        type=_numbers,
        default=(),
        metavar="N,M",
        help="for which (default: as the folder says)",
    )
    stage.add_argument(
        "--most",
        type=int,
        default=10_000,
        metavar="N",
        help="texts at most, spread over the file (default: %(default)s)",
    )


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(map(int, text.split(",")))


def _add_export(stage: argparse.ArgumentParser) -> None:
    stage.add_argument(
        "--workdir", type=Path, required=True, metavar="DIR", help="directory of the run"
    )
    stage.add_argument(
        "--output",
        type=Path,
        required=True,
        metavar="DIR",
        help="folder to write; replaces only its own",
    )
    kinds = "merged: adapters folded into the base; adapter: PEFT's files, on the base (default: %(default)s)"
    stage.add_argument("--format", choices=("merged", "adapter"), default="merged", help=kinds)
    stage.add_argument(
        "--dtype",
        choices=("float32", "bfloat16"),
        help="of the weights (default: the run's config.export.dtype)",
    )
    stage.add_argument(
        "--base-name",
        default="",
        metavar="NAME",
        help="what an adapter calls its base (default: as the run does)",
    )
    stage.add_argument(
        "--shard-gigabytes",
        type=float,
        default=5,
        metavar="GB",
        help="of a file at most (default: %(default)s)",
    )
    stage.add_argument(
        "--no-verify",
        dest="verify",
        action="store_false",
        help="writes without looking at what was written",
    )
    stage.add_argument(
        "--push-to-hub", metavar="OWNER/NAME", help="puts the folder on the Hugging Face hub, too"
    )
    stage.add_argument(
        "--private", action="store_true", help="a repository that is made for it is private"
    )


def _add_mine(stage: argparse.ArgumentParser) -> None:
    stage.add_argument(
        "--model", required=True, metavar="DIR", help="Hugging Face folder or hub id of the model"
    )
    stage.add_argument(
        "--input",
        type=Path,
        required=True,
        metavar="FILE",
        help="records, JSONL; their negatives are replaced",
    )
    corpus = "texts, in any file that `e5jax encode` reads; from-records: the records' own passages (default: from-records)"
    stage.add_argument("--corpus", default="from-records", metavar="FILE", help=corpus)
    stage.add_argument(
        "--output",
        type=Path,
        required=True,
        metavar="DIR",
        help="mined.jsonl, report.json, and vectors/ to resume from",
    )
    for name, kind, default, text in [
        ("negatives", int, 1, "of each record"),
        ("first", int, 1, "best rank that may be a negative; positives have no rank"),
        ("last", int, 100, "worst rank"),
        (
            "absolute-margin",
            float,
            None,
            "a negative scores at least that much less than every positive",
        ),
        (
            "relative-margin",
            float,
            None,
            "the same as a share of the positive's score; 0.05 is at most 95 %% of it",
        ),
        ("min-score", float, None, "of a negative"),
        ("max-score", float, None, "of a negative"),
        (
            "teacher-absolute-margin",
            float,
            None,
            "the same of the teacher's scores, which --scores brings",
        ),
        ("teacher-relative-margin", float, None, "the same of the teacher's scores"),
        ("teacher-min-score", float, None, "by the teacher"),
        ("teacher-max-score", float, None, "by the teacher"),
        ("pick", str, "top", "top: the best ranks that are left; random: any, by --seed"),
        ("short", str, "drop", "what becomes of records with too few negatives: drop or keep"),
        ("seed", int, 0, "of --pick=random"),
        ("shard", int, 16_384, "texts embedded between two savings"),
    ]:
        said = "" if default is None else " (default: %(default)s)"
        stage.add_argument(f"--{name}", type=kind, default=default, help=text + said)
    stage.add_argument("--instruction", help="instead of each record's own; empty for none")
    stage.add_argument(
        "--scores", metavar="FILE", help="a teacher's scores of pairs, JSONL (docs/mining.md)"
    )


def _add_eval(stage: argparse.ArgumentParser) -> None:
    stage.set_defaults(refuse=stage.error)
    what = stage.add_mutually_exclusive_group(required=True)
    what.add_argument("--model", metavar="DIR", help="Hugging Face folder or hub id of the model")
    texts = "writes texts.jsonl, which `e5jax data clean --evaluation` keeps out of training data"
    what.add_argument("--texts", action="store_true", help=texts)
    what.add_argument(
        "--report",
        action="store_true",
        help="writes the report of what --output holds again, and evaluates nothing",
    )
    stage.add_argument(
        "--tasks", default="", metavar="A,B", help="MTEB tasks, folders in BEIR layout, or both"
    )
    stage.add_argument(
        "--benchmark",
        metavar="NAME",
        help="all tasks of 'MTEB(eng, v1)', NanoBEIR, or another of MTEB's benchmarks",
    )
    output = "where results.json and mteb's own results go; the same command goes on with what is missing"
    stage.add_argument("--output", type=Path, required=True, metavar="DIR", help=output)
    preset = "the official evaluation of E5-Mistral, or what mteb does with it (docs/evaluation.md; default: %(default)s)"
    stage.add_argument("--preset", choices=("paper", "mteb-v2"), default="paper", help=preset)
    stage.add_argument(
        "--backend",
        choices=("torch", "jax"),
        default="torch",
        help="what runs the model (default: %(default)s)",
    )
    dtype = "of weights and arithmetic (default: float32 on CPUs; else float16 on torch, bfloat16 on jax)"
    stage.add_argument("--dtype", choices=("float32", "float16", "bfloat16"), help=dtype)
    stage.add_argument(
        "--instruction", help="instead of each task's own instruction; empty for none"
    )
    beside = "another folder of mteb's results, or the paper's table: paper, paper:public only, …; may be given again"
    stage.add_argument("--beside", action="append", default=[], metavar="NAME=DIR", help=beside)
    data = "training data that `e5jax data clean` or `prepare` wrote: the report says what is known of each task's texts in it"
    stage.add_argument(
        "--data", nargs="+", action="extend", type=Path, default=[], metavar="DIR", help=data
    )
    stage.add_argument("--price", type=float, metavar="MONEY", help="of an hour, for the report")
    stage.add_argument(
        "--vectors",
        type=Path,
        metavar="DIR",
        help="keeps all vectors there, and computes none of them twice",
    )


def _add_compact(stage: argparse.ArgumentParser) -> None:
    stage.add_argument(
        "--model", required=True, metavar="DIR", help="Hugging Face folder or hub id of the model"
    )
    stage.add_argument(
        "--task", type=Path, required=True, metavar="DIR", help="folder in BEIR layout"
    )
    stage.add_argument(
        "--output",
        type=Path,
        required=True,
        metavar="DIR",
        help="where results.json and report.html go",
    )
    stage.add_argument(
        "--dimensions",
        type=_numbers,
        default=(),
        metavar="N,M",
        help="leading ones (default: all, a half, …)",
    )
    kinds = "of what is stored (default: float32,int8,binary)"
    stage.add_argument(
        "--precisions",
        type=_precisions,
        default=("float32", "int8", "binary"),
        metavar="A,B",
        help=kinds,
    )
    stage.add_argument(
        "--oversample",
        type=int,
        default=4,
        metavar="N",
        help="candidates a result (default: %(default)s)",
    )
    stage.add_argument("--instruction", help="instead of the task's own; empty for none")
    rows = "vectors that searches are timed on (default: %(default)s)"
    stage.add_argument("--rows", type=int, default=100_000, metavar="N", help=rows)


def _precisions(text: str) -> tuple[str, ...]:
    found = tuple(text.split(","))
    if unknown := [name for name in found if name not in PRECISIONS]:
        raise argparse.ArgumentTypeError(f"{unknown[0]!r} is not one of {', '.join(PRECISIONS)}")
    return found


def _add_synth(stage: argparse.ArgumentParser) -> None:
    stage.add_argument(
        "--config",
        required=True,
        metavar="FILE",
        help="Python config file; --config.field=value overrides it",
    )
    stage.add_argument(
        "--output",
        type=Path,
        metavar="DIR",
        help="directory of the run (default: runs/ and the config's name)",
    )
    stage.add_argument(
        "--dry-run",
        action="store_true",
        help="asks nothing: prints requests, tokens, cost and prompts",
    )


def _add_plan(stage: argparse.ArgumentParser) -> None:
    stage.add_argument(
        "--config",
        required=True,
        metavar="FILE",
        help="Python config file; --config.field=value overrides it",
    )
    stage.add_argument(
        "--topology",
        required=True,
        metavar="NAME",
        help="v5e:4x4, v4:2x2x4, v5p:2x2x2, v6e:4x4, v5e:1x1, cpu:8, …",
    )
    stage.add_argument(
        "--slices", type=int, default=1, metavar="N", help="that many of them (default: 1)"
    )
    means = (
        "mean tokens of a query and of a passage, e.g. 40,180 (default: every text at the limit)"
    )
    stage.add_argument("--lengths", metavar="QUERY,PASSAGE", help=means)
    stage.add_argument("--json", action="store_true", help="prints one JSON object")
    stage.add_argument(
        "--search",
        action="store_true",
        help="looks for the fastest setting that fits: mesh, chunks, remat, base precision",
    )
    stage.add_argument(
        "--limit", type=int, default=20, metavar="N", help="most trials of a search (default: 20)"
    )
    free = "memory of a chip that a search leaves free, per cent (default: 8; 0: whatever compiles)"
    stage.add_argument("--headroom", type=float, default=8, metavar="PERCENT", help=free)


def _open(args: argparse.Namespace, overrides: list[str]) -> tuple[Config, Workdir]:
    config = load(args.config, overrides)
    return config, Workdir(args.workdir or DEFAULT_RUNS / Path(args.config).stem)


# Each stage imports what it needs when it runs: `e5jax --help` must not wait for JAX, nor training load PyTorch.


def _run(
    args: argparse.Namespace, overrides: list[str], only: str | None = None, allow: bool = False
) -> None:
    config, workdir = _open(args, overrides)
    info = read_process_info(os.environ)
    beat = heartbeat.Heartbeat(os.environ.get(heartbeat.FILE))
    signals = Signals(joins=info.processes > 1)
    with signals.listening():  # from here on there are artifacts, and JAX is imported
        from e5jax.distributed.coordination import Process
        from e5jax.pipeline import run

        run(config, workdir, only, Process(info, beat, signals), allow)


def _all(args: argparse.Namespace, overrides: list[str]) -> None:
    _run(args, overrides, allow=args.allow_change)


def _data(args: argparse.Namespace, overrides: list[str]) -> None:
    if args.config is None:
        args.refuse()
    _run(args, overrides, only="data")


def _train(args: argparse.Namespace, overrides: list[str]) -> None:
    _run(args, overrides, only="train", allow=args.allow_change)


def _export(args: argparse.Namespace, _: list[str]) -> None:
    workdir = Workdir(args.workdir)
    config = read_config(workdir)
    config.export.dtype = args.dtype or config.export.dtype
    from e5jax.export.push import check_name, push
    from e5jax.export.trained_model import Choice
    from e5jax.pipeline import export_to

    if args.push_to_hub:
        check_name(args.push_to_hub)
    if not args.shard_gigabytes > 0:
        raise ConfigError(f"--shard-gigabytes={args.shard_gigabytes}: must be above 0")
    export_to(
        config,
        workdir,
        args.output,
        Choice(args.format, args.base_name, int(args.shard_gigabytes * 1e9), args.verify),
    )
    if args.push_to_hub:
        print(f"export: {push(args.output, args.push_to_hub, private=args.private)}", flush=True)


def _checkpoints(args: argparse.Namespace, _: list[str]) -> int:
    from e5jax.checkpoint.retention import describe, listing

    workdir = Workdir(args.workdir)
    folder = (
        workdir.checkpoints_of(read_config(workdir).checkpoint)
        if workdir.config.is_file()
        else workdir.checkpoints
    )
    if not folder.is_dir():
        raise ConfigError(
            f"--workdir={args.workdir}: no checkpoints in it; it is not the directory of a training run"
        )
    if args.action == "show":
        print(describe(folder, args.step))
        return DONE
    lines, sound = listing(folder, verify=args.action == "verify")
    print("\n".join(lines) or "no checkpoints")
    return DONE if sound else ERROR


def _eval(args: argparse.Namespace, _: list[str]) -> int:
    if not (args.report or args.tasks or args.benchmark):
        args.refuse("one of --tasks and --benchmark is needed; or --report")
    from e5jax.eval.commands import main as evaluate

    return evaluate(args)


def _encode(args: argparse.Namespace, _: list[str]) -> int:
    from e5jax.inference.encode import Options
    from e5jax.inference.encode import main as encode

    if args.shard < 1:
        raise ConfigError(f"--shard={args.shard}: must be at least 1")
    return encode(
        args.model,
        args.input,
        args.output,
        Options(**{name: getattr(args, name) for name in Options._fields}),
    )


def _calibrate(args: argparse.Namespace, _: list[str]) -> int:
    from e5jax.inference.calibrate import main as calibrate

    if args.most < 2:
        raise ConfigError(f"--most={args.most}: must be at least 2")
    return calibrate(args.model, args.input, args.dimensions, args.field, args.most)


def _mine(args: argparse.Namespace, _: list[str]) -> int:
    from dataclasses import fields

    from e5jax.mine.settings import Mining

    rules = Mining(
        **{field.name: getattr(args, field.name) for field in fields(Mining)}
    )  # before JAX is imported
    from e5jax.mine.mine import main as mine

    return mine(
        args.model,
        args.input,
        None if args.corpus == "from-records" else Path(args.corpus),
        args.output,
        rules,
    )


def _compact(args: argparse.Namespace, _: list[str]) -> int:
    from e5jax.eval.quantization_study import Options
    from e5jax.eval.quantization_study import main as compact

    return compact(
        args.model,
        args.task,
        args.output,
        Options(**{name: getattr(args, name) for name in Options._fields}),
    )


def _synth(args: argparse.Namespace, overrides: list[str]) -> int:
    import gc

    from e5jax.synth.commands import main as synth

    gc.freeze()  # the libraries stay: looking them through again and again is a sixth of a run
    return synth(
        args.config, overrides, args.output or DEFAULT_RUNS / Path(args.config).stem, args.dry_run
    )


def _plan(args: argparse.Namespace, overrides: list[str]) -> int:
    from e5jax.plan.topology import parse_topology, prepare

    load(args.config, overrides)
    topology = parse_topology(args.topology, args.slices)
    prepare(topology)  # before JAX is imported
    from e5jax.plan.commands import Options, main
    from e5jax.plan.fill import parse_means

    means = parse_means(args.lengths) if args.lengths else None
    return main(
        args.config,
        overrides,
        topology,
        Options(means, args.limit if args.search else None, args.headroom, args.json),
    )


def _doctor(args: argparse.Namespace, _: list[str]) -> int:
    from e5jax.distributed.doctor import main as doctor

    return doctor(args.workdir)


class _Version(argparse.Action):
    """Prints what is running; it is looked up only then."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        there = versions()
        print(f"e5jax {there.pop('e5jax')} (commit {commit()})")
        print(", ".join(f"{name} {version}" for name, version in {**there, **optional()}.items()))
        parser.exit()


if __name__ == "__main__":
    command()
