"""`e5jax eval`: evaluates a model on MTEB tasks and local folders, and compares it with others."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from e5jax.config.commands import EvalOptions
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


def main(options: EvalOptions) -> int:
    """Evaluates and reports, or writes texts. Raises ConfigError for a wrong model or task."""
    names = (TEXTS,) if options.texts else (RESULTS, TEXT, PAGE)
    is_evaluation = not options.texts and (options.output / MTEB / SETTINGS).is_file()
    with writing("eval", *(options.output / name for name in names), own=is_evaluation):
        if options.texts:
            tasks = find_tasks(options.tasks, options.benchmark)
            counts = write_texts(tasks, options.output / TEXTS)
            print("\n".join(f"{count:>12,}  {task}" for task, count in counts.items()))
            print(f"texts: {options.output / TEXTS}", flush=True)
            return 0
        # Fails before a model is read.
        manifests, earlier = read_manifests(options.data), options.output / RESULTS
        tasks = read_results(earlier).tasks if earlier.is_file() else {}
        evaluated = {} if options.report else _evaluate(options)
        results = write_report(options, {**tasks, **evaluated}, manifests)
        if evaluated:
            shown = results._replace(tasks={name: results.tasks[name] for name in evaluated})
            print(aligned(metric_table(shown, [results.model]), left=3), flush=True)
    return 0


def _evaluate(options: EvalOptions) -> dict[str, Task]:
    """Evaluates the model and returns the tasks."""
    assert options.model is not None, "the command line needs --model, --texts or --report"
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
    return tasks


def write_report(
    options: EvalOptions, tasks: Mapping[str, Task], manifests: Sequence[Manifest]
) -> Results:
    """Writes the report of all results in `--output`."""
    settings_file = options.output / MTEB / SETTINGS
    if not tasks or not settings_file.is_file():
        missing = options.output / RESULTS if settings_file.is_file() else settings_file
        raise ConfigError(
            f"{missing}: no such file; "
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
