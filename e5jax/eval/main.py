"""`e5jax eval`: a model folder on MTEB tasks and local BEIR folders."""

import argparse
import difflib
import json
import os
import warnings
from collections.abc import Mapping
from pathlib import Path

import mteb
from mteb.abstasks.abstask import AbsTask

from e5jax.embedder import Embedder
from e5jax.errors import ConfigError
from e5jax.eval.encoder import InstructEncoder, JaxEncoder, torch_encoder
from e5jax.eval.evaluate import evaluate
from e5jax.eval.retrieval import load_task
from e5jax.eval.texts import TEXTS, write_texts
from e5jax.workdir import write_text


def main(args: argparse.Namespace) -> int:
    """Evaluates, prints a table and writes `results.json`; or writes texts. Raises ConfigError for a wrong model or task."""
    if args.model and not args.model.is_dir():
        raise ConfigError(f"--model={args.model}: there is no such folder")
    tasks = find_tasks(args.tasks)
    if args.texts:
        counts = write_texts(tasks, args.output / TEXTS)
        print("\n".join(f"{count:>12,}  {task}" for task, count in counts.items()))
        print(f"texts: {args.output / TEXTS}", flush=True)
        return 0
    encoder = make_encoder(args.model, args.backend, args.instruction)
    results = evaluate(encoder, tasks, args.output / "mteb")
    write_text(args.output / "results.json", json.dumps(results, indent=2) + "\n")
    print(table(results))
    return 0


def make_encoder(folder: Path, backend: str, instruction: str | None) -> InstructEncoder:
    """The folder as an mteb encoder; `instruction` None is the task's own, empty none."""
    if backend == "torch":
        return torch_encoder(folder, instruction)
    return JaxEncoder(Embedder.from_pretrained(folder, dtype="float32"), instruction, folder.resolve().name)


def find_tasks(names: str) -> list[AbsTask]:
    """Tasks from `A,B`, each an MTEB task name or a folder; raises ConfigError for what is neither."""
    tasks = [find_task(name) for name in names.split(",") if name]
    if not tasks:
        raise ConfigError("--tasks is empty: name MTEB tasks or folders in BEIR layout")
    seen = [task.metadata.name for task in tasks]
    if twice := {name for name in seen if seen.count(name) > 1}:
        raise ConfigError(f"--tasks names {', '.join(sorted(twice))} more than once; results are stored by name")
    return tasks


def find_task(name: str) -> AbsTask:
    """One task, by its MTEB name or as a folder in BEIR layout."""
    if os.sep in name or Path(name).is_dir():
        return load_task(Path(name))
    try:
        return mteb.get_task(name)
    except KeyError as error:
        raise ConfigError(f"--tasks: there is no MTEB task {name!r} and no such folder{_close(name)}") from error


def _close(name: str) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # each of MTEB's superseded and beta tasks warns that it is
        known = [task.metadata.name for task in mteb.get_tasks(exclude_superseded=False, exclude_beta=False)]
    near = difflib.get_close_matches(name, known, n=3)
    return f"; did you mean {' or '.join(near)}?" if near else ""


def table(results: Mapping[str, Mapping[str, float]]) -> str:
    """One line a task: its main score, and the retrieval scores where it has them."""
    columns = list(dict.fromkeys(name for scores in results.values() for name in scores))
    width = max(len("task"), *map(len, results))
    lines = ["  ".join(["task".ljust(width), *columns])]
    for task, scores in results.items():
        cells = [f"{scores[name]:.4f}" if name in scores else "-" for name in columns]
        lines.append("  ".join([task.ljust(width), *(cell.rjust(len(name)) for cell, name in zip(cells, columns, strict=True))]))
    return "\n".join(lines)
