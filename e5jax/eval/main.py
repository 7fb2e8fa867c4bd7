"""`e5jax eval`: a model folder on MTEB tasks and local BEIR folders, and how its scores compare with others'."""

import argparse
import json
from collections.abc import Mapping
from pathlib import Path

from e5jax.errors import ConfigError
from e5jax.eval.board import make_board
from e5jax.eval.contamination import read_manifests
from e5jax.eval.evaluate import SETTINGS, evaluate
from e5jax.eval.results import PAPER, find_results, paper_table, read_results
from e5jax.eval.scoreboard import PAGE, RESULTS, TEXT, write_board
from e5jax.eval.settings import make_encoder, settings_of
from e5jax.eval.tasks import find_tasks
from e5jax.eval.texts import TEXTS, write_texts
from e5jax.eval.vectors import Vectors
from e5jax.model.folder import locate
from e5jax.workdir import writing

MTEB = "mteb"  # below --output, mteb's own results


def main(args: argparse.Namespace) -> int:
    """Evaluates, prints a table and writes the report; or writes texts. Raises ConfigError for a wrong model or task."""
    names = (TEXTS,) if args.texts else (RESULTS, TEXT, PAGE)
    own = not args.texts and (args.output / MTEB / SETTINGS).is_file()  # the directory of an evaluation
    with writing("eval", *(args.output / name for name in names), own=own):
        _run(args)
    return 0


def _run(args: argparse.Namespace) -> None:
    if args.report:
        write_report(args, {})
        return
    folder = locate(args.model) if args.model else None
    tasks = find_tasks(args.tasks, args.benchmark)
    if folder is None:
        counts = write_texts(tasks, args.output / TEXTS)
        print("\n".join(f"{count:>12,}  {task}" for task, count in counts.items()))
        print(f"texts: {args.output / TEXTS}", flush=True)
        return
    settings = settings_of(folder, args.backend, args.preset, args.instruction, args.dtype)
    if folder != Path(args.model):  # of the hub: the folder's name is that of a revision
        settings["name"] = args.model.rpartition("/")[2]
    encoder = make_encoder(folder, settings)
    if args.vectors:
        encoder.vectors = Vectors(args.vectors, "\n".join(f"{name} {settings[name]}" for name in ("model", "backend", "dtype")))
    print(table(evaluate(encoder, tasks, args.output / MTEB, settings)))
    write_report(args, {task.metadata.name: task.metadata.type for task in tasks})


def write_report(args: argparse.Namespace, scope: Mapping[str, str]) -> None:
    """Compares all that `--output` holds with what stands beside it. `scope`: categories of tasks that were evaluated now."""
    settings = _read(args.output / MTEB / SETTINGS)
    held = _read(args.output / RESULTS)["tasks"] if (args.output / RESULTS).is_file() else {}
    scope = {task: of["category"] for task, of in held.items()} | dict(scope)
    usual = [PAPER] if settings["preset"] == PAPER and scope.keys() & paper_table()[1].keys() else []
    own = read_results(settings["name"], args.output / MTEB)
    systems = [own, *map(find_results, args.beside or usual)]
    names = [system.name for system in systems]
    if twice := {name for name in names if names.count(name) > 1}:
        raise ConfigError(f"--beside: {', '.join(sorted(twice))} stands there more than once; give NAME=DIR")
    write_board(args.output, make_board(systems, scope, read_manifests(args.data), settings, args.price))
    print(f"report: {args.output / PAGE}", flush=True)


def _read(path: Path) -> dict:
    if not path.is_file():
        raise ConfigError(f"{path}: no such file; evaluate first: e5jax eval --model=DIR --tasks=… --output=DIR")
    return json.loads(path.read_text(encoding="utf-8"))


def table(results: Mapping[str, Mapping[str, float]]) -> str:
    """One line a task: its main score, and the retrieval scores where it has them."""
    columns = list(dict.fromkeys(name for scores in results.values() for name in scores))
    width = max(len("task"), *map(len, results))
    lines = ["  ".join(["task".ljust(width), *columns])]
    for task, scores in results.items():
        cells = [f"{scores[name]:.4f}" if name in scores else "-" for name in columns]
        lines.append("  ".join([task.ljust(width), *(cell.rjust(len(name)) for cell, name in zip(cells, columns, strict=True))]))
    return "\n".join(lines)
