"""The evaluation stage of `e5jax run`: the export and what it is compared with, on every task.

Model folders flow in; `results.json`, `report.html` and a table flow out.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from mteb.abstasks.abstask import AbsTask

from e5jax.config import Config, Eval
from e5jax.eval.backends import make_encoder, settings_of
from e5jax.eval.bm25 import BM25
from e5jax.eval.comparison import compare, read_system
from e5jax.eval.evaluate import evaluate
from e5jax.eval.report import html, metric_table
from e5jax.eval.run_sections import HELDOUT, run_sections
from e5jax.eval.tasks import describe, find_task
from e5jax.report.results import write_results
from e5jax.report.tables import aligned
from e5jax.workdir.directory import Workdir, write_text


class Candidate(NamedTuple):
    """A system to evaluate. `folder` None: BM25. `instruction` None: the task's; empty: none."""

    name: str
    folder: Path | None
    instruction: str | None = None


def evaluate_run(
    config: Config, workdir: Workdir, untrained: Path, base: Path | None, missing_base: str
) -> None:
    """Evaluates, prints the table, and writes `results.json` and `report.html`.

    `missing_base` says why there is no `base`; empty if there is one, or none is expected.
    """
    selected = [
        find_task(str(workdir.data / HELDOUT) if name == HELDOUT else name)
        for name in config.eval.tasks
    ]
    tasks = {task.metadata.name: describe(task) for task in selected}
    notes = [missing_base] if missing_base else []
    for note in [*(f"{name}: {n}" for name, task in tasks.items() for n in task.notes), *notes]:
        print(f"note: {note}", flush=True)
    chosen = candidates(config, workdir, untrained, base)
    *_, settings = [_evaluate(each, selected, config.eval, workdir) for each in chosen]
    systems = [read_system(each.name, mteb_folder(workdir, each.name), tasks) for each in chosen]
    model = chosen[-1].name
    results = compare(systems, model, tasks, settings=settings, notes=notes)
    heldout = HELDOUT in config.eval.tasks
    searches = mteb_folder(workdir, model) if heldout else None
    command = next_command(config, workdir)
    sections = run_sections(config, workdir, searches, command)
    write_results(workdir.results, results)
    lead = "Docstrings search for their functions in packages held out from training."
    title = f"e5jax: {workdir.root.name}"
    write_text(workdir.report, html(title, lead if heldout else "", results, sections))
    print(aligned(metric_table(results), left=3))
    print(f"\nresults: {workdir.results}\nreport:  {workdir.report}\nmodel:   {workdir.export}")
    print(f"next:    {command}", flush=True)


def candidates(
    config: Config, workdir: Workdir, untrained: Path, base: Path | None
) -> list[Candidate]:
    """The systems to compare; the trained model is the last."""
    if config.pretrain is None:
        start = [Candidate("base", base)] if base else []
        return [*start, Candidate("trained", workdir.export)]
    return [
        Candidate("untrained", untrained, ""),
        Candidate("bm25", None),
        Candidate("stage1", workdir.pretrain.export, ""),
        Candidate("stage2", workdir.export, ""),
    ]


def _evaluate(
    candidate: Candidate, tasks: Sequence[AbsTask], config: Eval, workdir: Workdir
) -> dict[str, str | None]:
    """Evaluates a candidate and returns its settings."""
    print(f"eval: {candidate.name}", flush=True)
    output = mteb_folder(workdir, candidate.name)
    if candidate.folder is None:
        evaluate(BM25(), tasks, output)
        return {}
    settings = settings_of(candidate.folder, config.backend, config.preset, candidate.instruction)
    evaluate(make_encoder(candidate.folder, settings), tasks, output, settings)
    return settings


def mteb_folder(workdir: Workdir, system: str) -> Path:
    """Where mteb's results of a system are.

    The base has `start`: earlier versions stored scores of the base as published in `base`.
    """
    return workdir.root / "mteb" / ("start" if system == "base" else system)


def next_command(config: Config, workdir: Workdir) -> str:
    """A command to try after this run."""
    if config.data.harvest is None:
        output = workdir.root / "mteb-eng-v1"
        return f"e5jax eval --model={workdir.export} --benchmark='MTEB(eng, v1)' --output={output}"
    longer = workdir.root.parent / "longer"
    return (
        f"launch/train.sh configs/quickstart.py --workdir={longer} "
        "--config.pretrain.optim.steps=1000"
    )
