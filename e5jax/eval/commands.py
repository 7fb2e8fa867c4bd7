"""`e5jax eval`: evaluates a model on MTEB tasks and local folders, and compares it with others."""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

from e5jax.errors import ConfigError
from e5jax.eval.backends import make_encoder, settings_of
from e5jax.eval.comparison import PAPER, compare, find_system, read_system
from e5jax.eval.contamination import TEXTS, Manifest, read_manifests, write_texts
from e5jax.eval.encoder import VectorCache
from e5jax.eval.evaluate import SETTINGS, evaluate
from e5jax.eval.report import PAGE, RESULTS, TEXT, html, markdown, metric_table
from e5jax.eval.tasks import describe, find_tasks, paper_tasks
from e5jax.jsonl import read_object
from e5jax.model.folder import locate
from e5jax.report.results import Results, Task, read_results, write_results
from e5jax.report.tables import aligned
from e5jax.workdir.directory import write_text, writing

MTEB = "mteb"  # the folder of mteb's results in --output


def main(options: argparse.Namespace) -> int:
    """Evaluates and reports, or writes texts. Raises ConfigError for a wrong model or task."""
    names = (TEXTS,) if options.texts else (RESULTS, TEXT, PAGE)
    is_evaluation = not options.texts and (options.output / MTEB / SETTINGS).is_file()
    with writing("eval", *(options.output / name for name in names), own=is_evaluation):
        manifests = read_manifests(options.data)  # fails before a model is read
        if options.report:
            write_report(options, {}, manifests)
        elif options.texts:
            counts = write_texts(
                find_tasks(options.tasks, options.benchmark), options.output / TEXTS
            )
            print("\n".join(f"{count:>12,}  {task}" for task, count in counts.items()))
            print(f"texts: {options.output / TEXTS}", flush=True)
        else:
            _evaluate(options, manifests)
    return 0


def _evaluate(options: argparse.Namespace, manifests: Sequence[Manifest]) -> None:
    folder = locate(options.model)
    selected = find_tasks(options.tasks, options.benchmark)
    tasks = {task.metadata.name: describe(task) for task in selected}
    for system in options.beside:  # fails before a model is read
        find_system(system, tasks)
    settings = settings_of(
        folder, options.backend, options.preset, options.instruction, options.dtype
    )
    if folder != Path(options.model):  # a snapshot of the hub, whose folder is named by a revision
        settings["name"] = options.model.rpartition("/")[2]
    encoder = make_encoder(folder, settings)
    if options.vectors:
        identity = "\n".join(f"{name} {settings[name]}" for name in ("model", "backend", "dtype"))
        encoder.cache = VectorCache(options.vectors, identity)
    for name, task in tasks.items():
        for note in task.notes:
            print(f"note: {name}: {note}", flush=True)
    evaluate(encoder, selected, options.output / MTEB, settings)
    results = write_report(options, tasks, manifests)
    evaluated = results._replace(tasks={name: results.tasks[name] for name in tasks})
    print(aligned(metric_table(evaluated, [results.model]), left=3), flush=True)


def write_report(
    options: argparse.Namespace, tasks: Mapping[str, Task], manifests: Sequence[Manifest]
) -> Results:
    """Writes the report of all results in `--output`; `tasks` are those evaluated just now."""
    settings_file, earlier = options.output / MTEB / SETTINGS, options.output / RESULTS
    if earlier.is_file():
        tasks = {**read_results(earlier).tasks, **tasks}
    if not tasks or not settings_file.is_file():
        raise ConfigError(
            f"{earlier if settings_file.is_file() else settings_file}: no such file; "
            "evaluate first: e5jax eval --model=DIR --tasks=… --output=DIR"
        )
    settings = read_object(settings_file)
    comparable = any(
        name in tasks and of.same_data(tasks[name]) for name, of in paper_tasks().items()
    )
    default = [PAPER] if settings["preset"] == PAPER and comparable else []
    model = settings["name"]
    systems = [
        read_system(model, options.output / MTEB, tasks),
        *(find_system(text, tasks) for text in options.beside or default),
    ]
    names = [system.name for system in systems]
    if repeated := {name for name in names if names.count(name) > 1}:
        raise ConfigError(
            f"--beside: {', '.join(sorted(repeated))} is there more than once; give NAME=DIR"
        )
    results = compare(
        systems, model, tasks, manifests=manifests, settings=settings, price=options.price
    )
    complete = sum(name in results.scores[model] for name in tasks)
    lead = f"{complete} of {len(tasks)} tasks, preset {settings['preset']}."
    title = f"Evaluation of {model}"
    write_results(options.output / RESULTS, results)
    write_text(options.output / TEXT, markdown(title, lead, results))
    write_text(options.output / PAGE, html(title, lead, results))
    print(f"report: {options.output / PAGE}", flush=True)
    return results
