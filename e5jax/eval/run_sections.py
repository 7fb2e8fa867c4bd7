"""Sections of a run's report: how training went, its texts, and examples of what the model finds.

The files of a run directory flow in, sections of a page flow out.
"""

import json
import math
import operator
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from e5jax.config import Config
from e5jax.data.beir import read_retrieval
from e5jax.eval.queries import read_rankings
from e5jax.eval.report import ABSENT, duration
from e5jax.report import charts, page
from e5jax.train.metrics import read_rows
from e5jax.workdir.directory import Workdir

HELDOUT = "heldout"
_EXAMPLES = 6
_LENGTHS = "training pairs, by length before truncation, instructions and other prompts included."


class TrainingRun(NamedTuple):
    """A training run and the rows of its `metrics.jsonl`."""

    name: str
    metrics: Sequence[Mapping[str, float]]
    trained_parameters: int

    def curve(self, key: str) -> tuple[list[float], list[float]]:
        """Steps and values of a metric, if finite."""
        rows = [row for row in self.metrics if row.get(key) is not None]
        finite = [row for row in rows if math.isfinite(row[key])]
        return [row["step"] for row in finite], [row[key] for row in finite]


_FIGURES: Sequence[tuple[str, str, Callable[[list[float]], float], Callable[[float], str]]] = (
    ("Time in steps", "train/step_seconds", sum, duration),
    ("Pairs per second (median)", "train/pairs_per_second", statistics.median, "{:,.1f}".format),
    ("Tokens per second (median)", "train/tokens_per_second", statistics.median, "{:,.0f}".format),
    ("Share of real tokens (median)", "train/real_token_share", statistics.median, "{:.1%}".format),
    ("Last loss", "train/loss", operator.itemgetter(-1), "{:.4f}".format),
    ("Last accuracy", "train/accuracy", operator.itemgetter(-1), "{:.1%}".format),
)


def run_sections(
    config: Config, workdir: Workdir, mteb: Path | None, command: str
) -> list[page.Html]:
    """All sections; `mteb`: the folder of results on the held-out pairs, if there are any."""
    lengths = (
        json.loads(workdir.lengths.read_text(encoding="utf-8")) if workdir.lengths.is_file() else {}
    )
    sections = [
        training_section(read_runs(config, workdir)),
        length_section(lengths.get("queries", ()), lengths.get("passages", ())),
    ]
    sections += [search_section(workdir.data / HELDOUT, mteb)] if mteb else []
    return [*sections, page.section("Next", page.code(command))]


def read_runs(config: Config, workdir: Workdir) -> list[TrainingRun]:
    """The training runs, in their order."""
    stages = [("training", workdir)]
    if config.pretrain:
        stages = [("stage 1", workdir.pretrain), ("stage 2", workdir)]
    return [
        TrainingRun(
            name,
            read_metrics(stage.metrics),
            json.loads(stage.trained.read_text(encoding="utf-8"))["trained_parameters"],
        )
        for name, stage in stages
    ]


def read_metrics(path: Path) -> list[dict[str, float]]:
    """The rows of a `metrics.jsonl` by step; a step that a resumed run repeated counts once."""
    by_step = {row["step"]: row for row in read_rows(path)}
    return [by_step[step] for step in sorted(by_step)]


def training_section(runs: Sequence[TrainingRun]) -> page.Html:
    """Key figures and curves of the training runs."""
    rows = [
        ["Steps", *(f"{len(run.metrics):,}" for run in runs)],
        ["Trained parameters", *(f"{run.trained_parameters:,}" for run in runs)],
    ]
    for name, key, reduce, form in _FIGURES:
        columns = [run.curve(key)[1] for run in runs]
        rows.append([name, *(form(reduce(each)) if each else ABSENT for each in columns)])
    curves = [
        (caption, charts.curves({run.name: run.curve(key) for run in runs}, from_zero=True))
        for caption, key in (
            ("Loss (InfoNCE)", "train/loss"),
            ("Accuracy within the batch", "train/accuracy"),
        )
    ]
    table = page.table(["", *(run.name for run in runs)], rows)
    return page.section("Training", table, page.figures(curves))


def length_section(queries: Sequence[int], passages: Sequence[int]) -> page.Html:
    """Lengths of the training texts in tokens."""
    if not queries:
        text = "Their lengths were not recorded when the run was trained."
        return page.section("Training texts", page.paragraph(text))
    figures = [
        ("Queries by length", charts.histogram(queries)),
        ("Passages by length", charts.histogram(passages)),
    ]
    text = page.paragraph(f"{len(queries):,} {_LENGTHS}")
    return page.section("Training texts", text, page.figures(figures))


def search_section(heldout: Path, mteb: Path) -> page.Html:
    """Queries of the held-out pairs from the easiest to the hardest, with their best documents.

    They are evenly spaced by rank, and come from the evaluation: nothing is embedded again.
    """
    data, rankings = read_retrieval(heldout), read_rankings(mteb, HELDOUT)
    order = sorted(rankings, key=lambda query: rankings[query].rank or len(data.corpus) + 1)
    spaced = np.linspace(0, len(order) - 1, _EXAMPLES + 1, dtype=int)[:-1].tolist()
    chosen = [order[place] for place in sorted(set(spaced))] if order else []
    articles = []
    for query in chosen:
        grades, (rank, best) = data.relevant.get(query, {}), rankings[query]
        answers = [
            page.answer(
                number,
                name,
                f"{score:.3f}",
                data.corpus[name].text,
                "✓ right" if grades.get(name, 0) > 0 else "",
            )
            for number, (name, score) in enumerate(best, start=1)
        ]
        place = f"at rank {rank:,}" if rank else "not among the first thousand"
        articles.append(
            page.quote(data.queries[query], f"The right function is {place}.", *answers)
        )
    text = (
        "Queries from the easiest to the hardest, evenly spaced by the rank of the right function."
    )
    return page.section("What it finds", page.paragraph(text), *articles)
