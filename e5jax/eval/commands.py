"""`e5jax eval`: a model folder on MTEB tasks and local BEIR folders, and how its scores compare with others'."""

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from e5jax.errors import ConfigError
from e5jax.eval.comparison import make_board
from e5jax.eval.comparison_report import PAGE, RESULTS, TEXT, write_board
from e5jax.eval.contamination import Manifest, read_manifests
from e5jax.eval.evaluate import SETTINGS, evaluate
from e5jax.eval.results import PAPER, find_results, read_results
from e5jax.eval.scope import TaskScope, scope_of
from e5jax.eval.settings import make_encoder, settings_of
from e5jax.eval.tasks import find_tasks, paper_scopes
from e5jax.eval.texts import TEXTS, write_texts
from e5jax.eval.vectors import Vectors
from e5jax.model.folder import locate
from e5jax.workdir.directory import writing

MTEB = "mteb"  # below --output, mteb's own results


def main(args: argparse.Namespace) -> int:
    """Evaluates, prints a table and writes the report; or writes texts. Raises ConfigError for a wrong model or task."""
    names = (TEXTS,) if args.texts else (RESULTS, TEXT, PAGE)
    own = (
        not args.texts and (args.output / MTEB / SETTINGS).is_file()
    )  # the directory of an evaluation
    with writing("eval", *(args.output / name for name in names), own=own):
        _run(args)
    return 0


def _run(args: argparse.Namespace) -> None:
    manifests = read_manifests(
        args.data
    )  # what is wrong with --data and --beside is said before a model is read
    if args.report:
        write_report(args, {}, manifests)
        return
    folder = locate(args.model) if args.model else None
    tasks = find_tasks(args.tasks, args.benchmark)
    if folder is None:
        counts = write_texts(tasks, args.output / TEXTS)
        print("\n".join(f"{count:>12,}  {task}" for task, count in counts.items()))
        print(f"texts: {args.output / TEXTS}", flush=True)
        return
    scope = {task.metadata.name: scope_of(task) for task in tasks}
    for name in args.beside:
        find_results(name, scope)
    settings = settings_of(folder, args.backend, args.preset, args.instruction, args.dtype)
    if folder != Path(args.model):  # of the hub: the folder's name is that of a revision
        settings["name"] = args.model.rpartition("/")[2]
    encoder = make_encoder(folder, settings)
    if args.vectors:
        encoder.vectors = Vectors(
            args.vectors,
            "\n".join(f"{name} {settings[name]}" for name in ("model", "backend", "dtype")),
        )
    print(
        "".join(f"note: {task}: {note}\n" for task, of in scope.items() for note in of.notes),
        end="",
        flush=True,
    )
    print(
        table(
            evaluate(encoder, tasks, args.output / MTEB, settings),
            {task: of.label for task, of in scope.items()},
        )
    )
    write_report(args, scope, manifests)


def write_report(
    args: argparse.Namespace, scope: Mapping[str, TaskScope], manifests: Sequence[Manifest]
) -> None:
    """Compares all that `--output` holds with what stands beside it. `scope`: the tasks that were evaluated now."""
    settings = _read(args.output / MTEB / SETTINGS)
    scope = _earlier(args.output / RESULTS) | dict(scope)
    comparable = any(
        task in scope and of.same_data(scope[task]) for task, of in paper_scopes().items()
    )
    usual = [PAPER] if settings["preset"] == PAPER and comparable else []
    own = read_results(settings["name"], args.output / MTEB, scope)
    systems = [own, *(find_results(name, scope) for name in args.beside or usual)]
    names = [system.name for system in systems]
    if twice := {name for name in names if names.count(name) > 1}:
        raise ConfigError(
            f"--beside: {', '.join(sorted(twice))} stands there more than once; give NAME=DIR"
        )
    write_board(args.output, make_board(systems, scope, manifests, settings, args.price))
    print(f"report: {args.output / PAGE}", flush=True)


def _earlier(path: Path) -> dict[str, TaskScope]:
    """The tasks of earlier evaluations into the same output."""
    if not path.is_file():
        return {}
    tasks = _read(path)["tasks"]
    if unknown := [
        task for task, of in tasks.items() if not {"category", "splits", "subsets"} <= of.keys()
    ]:
        raise ConfigError(
            f"{path}: does not say of which splits and subsets the scores of {', '.join(unknown)} are; remove the file and "
            "evaluate the tasks again (those that are finished are not run again)"
        )
    return {
        task: TaskScope(
            of["category"], tuple(of["splits"]), tuple(of["subsets"]), tuple(of.get("notes", ()))
        )
        for task, of in tasks.items()
    }


def _read(path: Path) -> dict:
    if not path.is_file():
        raise ConfigError(
            f"{path}: no such file; evaluate first: e5jax eval --model=DIR --tasks=… --output=DIR"
        )
    return json.loads(path.read_text(encoding="utf-8"))


def table(results: Mapping[str, Mapping[str, float]], labels: Mapping[str, str]) -> str:
    """One line per task: its splits and subsets, its main score, and the retrieval scores where it has them."""
    columns = list(dict.fromkeys(name for scores in results.values() for name in scores))
    width, label_width = (
        max(len("task"), *map(len, results)),
        max(len("of"), *map(len, labels.values())),
    )
    lines = ["  ".join(["task".ljust(width), "of".ljust(label_width), *columns])]
    for task, scores in results.items():
        cells = [
            (f"{scores[name]:.4f}" if name in scores else "-").rjust(len(name)) for name in columns
        ]
        lines.append("  ".join([task.ljust(width), labels[task].ljust(label_width), *cells]))
    return "\n".join(lines)
