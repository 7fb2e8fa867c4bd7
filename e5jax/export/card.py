"""The model card of an exported folder: README.md in the form that model hubs read."""

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from e5jax.config import Training
from e5jax.export.objective import objective
from e5jax.export.provenance import NOT_RECORDED, Cleaning, Source, cleanings, sources
from e5jax.export.trained_model import Choice, TrainedModel
from e5jax.export.usage import code, usage
from e5jax.report.results import read_results
from e5jax.report.tables import Table, markdown
from e5jax.workdir.directory import Workdir

SHOWN = 3  # files of a set
SCORES, LIMITS = "## Scores\n\n", "## Limits\n\n"
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


def model_card(subject: TrainedModel, choice: Choice, workdir: Workdir | None = None) -> str:
    """What it is, how to use it, how and on what it was trained, what it scored, and its limits."""
    run, spec = subject.run, subject.made.spec
    found = sources(run, workdir)
    parts = [
        _head(subject, choice, found),
        "# Text embedder trained with e5jax",
        f"{spec.layers} layers, {spec.hidden} dimensions, {run.model.pooling.replace('_', ' ')}-token pooling, "
        f"at most {subject.tokenizer.limit} tokens a text, cosine similarity.",
        usage(subject, choice),
        _training(subject),
        _data(run, found),
        _decontamination(cleanings(found)),
        _limits(subject, choice),
    ]
    card = "\n\n".join(part.strip() for part in parts) + "\n"
    return with_scores(card, workdir.results) if workdir and workdir.results.is_file() else card


def with_scores(card: str, results: Path) -> str:
    """The card with the scores of a run's `results.json`, in place of those that it had."""
    before, limits, rest = card.partition(LIMITS)
    return f"{before.partition(SCORES)[0]}{_scores(results)}\n\n{limits}{rest}"


def _head(subject: TrainedModel, choice: Choice, found: Sequence[Source]) -> str:
    base = choice.base_name or subject.run.model.base
    lines = ["library_name: sentence-transformers", "pipeline_tag: sentence-similarity"]
    if _HUB_ID.fullmatch(base) and not Path(base).is_dir():
        lines += [
            f"base_model: {base}",
            f"base_model_relation: {'adapter' if choice.format == 'adapter' else 'finetune'}",
        ]
    more = ["peft", "lora"] if choice.format == "adapter" else []
    lines += [
        f"tags: [{', '.join(['sentence-transformers', 'feature-extraction', subject.made.spec.family, 'e5jax', *more])}]"
    ]
    languages = sorted({code for source in found for code in source.languages if code})
    lines += (
        [f"language: [{', '.join(json.dumps(code) for code in languages)}]"] if languages else []
    )
    return "\n".join(["---", *lines, "---"])


def _training(subject: TrainedModel) -> str:
    run, rate = subject.run, subject.run.optim
    how = _trained(run)
    if run.model.quantisation != "none":
        how += f"; trained beside {run.model.quantisation} numbers of the base, here on its original ones"
    positives = (
        "a positive"
        if run.batch.positives == 1
        else f"up to {run.batch.positives} positives, a pair each"
    )
    rows = [
        ("start", _start(run)),
        ("trained", how),
        ("step", f"{subject.step} of {rate.steps}"),
        (
            "batch",
            f"{run.batch.queries} queries over all devices, each with {positives}; hard negatives: {run.batch.negatives}",
        ),
        *objective(run),
        (
            "optimiser",
            f"AdamW, rate {rate.learning_rate:g}, weight decay {rate.weight_decay:g}, gradient norm {rate.clip_norm:g}",
        ),
        (
            "schedule",
            f"{rate.warmup_steps} warm-up steps, then linear decay to zero at step {rate.steps}",
        ),
        ("numbers", f"{run.model.dtype} in training, {run.export.dtype} here"),
        ("seed", str(run.seed)),
    ]
    return "## Training\n\n" + _table(("", ""), rows)


def _trained(run: Training) -> str:
    parts = []
    if run.lora:
        parts = [
            f"LoRA r={run.lora.rank}, alpha={run.lora.alpha:g}, dropout={run.lora.dropout:g} on {', '.join(run.lora.targets)}"
        ]
    if run.select.names:
        parts.append("parameters called " + ", ".join(f"`{name}`" for name in run.select.names))
        parts += [f"`top/` being the last {run.select.top} layers"] if run.select.top else []
    return "; ".join(parts) or "all parameters"


def _start(run: Training) -> str:
    if Path(run.model.base).is_dir():
        return Path(run.model.base).resolve().name  # where it lay is of no use to others
    return run.model.base or (
        "random weights" if run.model.scratch else "the pretrain stage of the same run"
    )


def _data(run: Training, found: Sequence[Source]) -> str:
    mixture = run.data.mixture
    lines = ["## Data", ""]
    if len(found) > 1:
        each = {
            "ratio": "the part of its examples in an epoch",
            "weight": "its weight among the draws",
        }.get(mixture.shares, f"its size to the power of {mixture.alpha:g}")
        lines += [f"Shares: {each}; {mixture.order} order, {mixture.batches} batches.", ""]
    columns = (
        "set",
        "of",
        "examples",
        "share",
        "temperature",
        "hard negatives",
        "in-batch",
        "tokens",
        "licence",
    )
    lines += [_table(columns, [_row(source, mixture.shares) for source in found]), ""]
    for source in found:
        lines += list(_details(source))
    if not run.data.instructions:
        lines.append("No query had an instruction in training.")
    return "\n".join(lines)


def _row(source: Source, shares: str) -> tuple[str, ...]:
    one = source.dataset
    share = {"ratio": f"{one.ratio:g}", "weight": f"{one.weight:g}"}.get(shares, "by size")
    count = "" if source.examples is None else f"{source.examples:,}"
    tokens = f"{one.query_tokens} / {one.passage_tokens}"
    in_batch = "yes" if one.in_batch else "no"
    return (
        source.name,
        source.title,
        count,
        share,
        f"{one.temperature:g}",
        str(one.negatives),
        in_batch,
        tokens,
        source.licence,
    )


def _details(source: Source) -> Iterator[str]:
    for task in source.dataset.instructions:
        yield f"- {source.name}: instruction `{code(task)}`{' on both sides' if source.dataset.symmetric else ''}"
    if source.published:
        more = len(source.published) - SHOWN
        yield f"- {source.name}: from {', '.join(source.published[:SHOWN])}{f' and {more} more' if more > 0 else ''}"


def _decontamination(found: Sequence[Cleaning]) -> str:
    lines = ["## Decontamination", ""]
    if not found:
        return "\n".join(
            [
                *lines,
                f"{NOT_RECORDED.capitalize()}: no report of a cleaning lies beside the training files.",
            ]
        )
    for _, report in found:
        removed = {
            cause: sum(sum(parts.values()) for parts in reasons.values())
            for cause, reasons in report["removed"].items()
        }
        rules = report.get("rules", {})
        said = ", ".join(f"{count:,} as {cause}" for cause, count in removed.items()) or "none"
        lines.append(
            f"- {report['examples']:,} examples looked through for {report.get('evaluation_texts', 0):,} evaluation texts: "
            f"{report['kept']:,} kept; removed: {said} (near copies from Jaccard similarity {rules.get('threshold', '?')}, "
            f"evaluation texts from a share of {rules.get('share', '?')} of n-grams)"
        )
    return "\n".join(lines)


def _scores(path: Path) -> str:
    """The scores of a `results.json` by task and system, with splits and subsets."""
    results = read_results(path)
    rows = []
    for system, by_task in results.scores.items():
        for task, metrics in by_task.items():
            values = ", ".join(f"{name} {value:.4f}" for name, value in metrics.items())
            rows.append((f"{task} ({results.tasks[task].label})", system, values))
    return SCORES + _table(("task", "system", "scores"), sorted(rows))


def _limits(subject: TrainedModel, choice: Choice) -> str:
    bos, eos = subject.tokenizer.pieces
    lines = [
        "It knows what its training pairs show and no more; languages, domains and lengths outside them are untested.",
        f"Texts are cut at {subject.tokenizer.limit} tokens, `{bos}` and `{eos}` included.",
        "Licences of base and data hold for what is made of them; what this card says of them is what their publishers say.",
    ]
    if not choice.verify:
        lines.append("The folder was written without being verified.")
    return LIMITS + "\n".join(f"- {line}" for line in lines)


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return markdown(Table(columns, rows))
