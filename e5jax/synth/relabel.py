"""Relabelling: a model grades what mining found, and the best becomes the positive, the best bad one the hard negative."""

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from e5jax.data.files import objects
from e5jax.data.records import Example, make_example
from e5jax.datasets.normalise import read as words_of
from e5jax.errors import ConfigError, RecordError
from e5jax.llm_client.request import Reply, Request
from e5jax.synth.answer import Question, answer, each
from e5jax.synth.collect import Counts
from e5jax.synth.collection import Collection
from e5jax.synth.config import Relabel
from e5jax.synth.details import Details, Entry
from e5jax.synth.judge import GRADES, grade_of
from e5jax.synth.plan import Plan
from e5jax.synth.prompts import TASK, fill, quoted, quoted_list, templates
from e5jax.synth.reasons import UnfitError
from e5jax.synth.reply import read

NAME = "relabel"


class Record(NamedTuple):
    """A mined record: its texts, the positives first, then the negatives by rank."""

    number: int
    example: Example
    candidates: tuple[str, ...]

    @property
    def id(self) -> str:
        return f"{NAME}/{self.number:06d}"


def records(rules: Relabel) -> Iterator[Record]:
    """The records of all files. Raises ConfigError `file:line: reason`."""
    number = 0
    for path in rules.files:
        if not Path(path).is_file():
            raise ConfigError(f"config.relabel.files={path}: there is no such file")
        for line, values in objects(Path(path)):
            where = f"{path}:{line}"
            try:
                example = make_example(values, where)
            except RecordError as error:
                raise ConfigError(f"{where}: {error}") from error
            texts = tuple(dict.fromkeys((*example.positives, *example.negatives)))[
                : rules.candidates
            ]
            yield Record(number, example, texts)
            number += 1


def ask(
    plan: Plan, record: Record, rules: Relabel, attempt: int = 0, doubled: bool = False
) -> Request:
    """For a grade of each candidate."""
    text = fill(
        templates("relabel.generate")[0],
        {
            "task": quoted(record.example.instruction, TASK),
            "query": quoted(record.example.query, rules.characters),
            "texts": quoted_list(record.candidates, rules.characters),
            "count": str(len(record.candidates)),
        },
    )
    return plan.request(
        f"{record.id}/generate",
        text,
        _schema(len(record.candidates)),
        attempt,
        doubled,
        rules.temperature,
    )


def _schema(count: int) -> dict[str, Any]:
    grades = {
        "type": "array",
        "items": {"type": "integer", "enum": list(GRADES)},
        "minItems": count,
        "maxItems": count,
    }
    return {
        "type": "object",
        "properties": {"grades": grades},
        "required": ["grades"],
        "additionalProperties": False,
    }


def chosen(record: Record, values: dict[str, Any], rules: Relabel) -> Example:
    """The record with one positive and one negative, and their grades as scores. Raises UnfitError."""
    given = values.get("grades")
    if (
        set(values) != {"grades"}
        or not isinstance(given, list)
        or len(given) != len(record.candidates)
    ):
        raise UnfitError("schema", f"no list of {len(record.candidates)} grades")
    grades = [grade_of(value) for value in given]
    best = max(range(len(grades)), key=lambda i: (grades[i], -i), default=None)
    if best is None or grades[best] < rules.least:
        raise UnfitError("no-positive", f"no grade of {rules.least} or more: {grades}")
    worse = next((i for i, grade in enumerate(grades) if grade <= rules.most), None)
    if worse is None:
        raise UnfitError("no-negative", f"no grade of {rules.most} or less: {grades}")
    return record.example._replace(
        positives=(record.candidates[best],),
        negatives=(record.candidates[worse],),
        positive_scores=(float(grades[best]),),
        negative_scores=(float(grades[worse]),),
    )


async def relabel(run: Collection, rules: Relabel, given: Sequence[Record]) -> dict[str, Counts]:
    """Fills the shelf."""
    settled = Counter[str]()

    async def settle(record: Record) -> None:
        await _settle(run, rules, record)
        settled["all"] += 1
        run.progress("records", settled["all"], len(given))

    await each(given, settle, run.workers, run.halt)
    kept, dropped = len(run.shelf), len(run.dropped)
    return {NAME: Counts(len(given), kept, dropped, len(given) - kept - dropped)}


async def _settle(run: Collection, rules: Relabel, record: Record) -> None:
    async def take(reply: Reply) -> Entry:
        made = chosen(record, read(reply), rules)
        return Entry(_details(record, made, reply), made)

    def request(attempt: int, doubled: bool) -> Request:
        return ask(run.plan, record, rules, attempt, doubled)

    question = Question(record.id, request)
    found = await answer(
        run.session, question, take, run.config.checks.attempts, run.rejected.append, run.halt
    )
    if isinstance(found, Entry):
        run.shelf.put(record.id, found.to_json())
    elif found is not None:
        run.dropped[record.id] = found.reason


def _details(record: Record, made: Example, reply: Reply) -> Details:
    texts = {"query": made.query, "positive": made.positives[0], "negative": made.negatives[0]}
    return Details(
        id=made.id,
        family=NAME,
        language=made.language,
        target="",
        identified=False,
        model=reply.model,
        attempt=reply.attempt,
        template=0,
        choices={
            "candidates": str(len(record.candidates)),
            "positive was": str(record.candidates.index(made.positives[0])),
        },
        words={name: words_of(text).length for name, text in texts.items()},
        grade=int(made.positive_scores[0]),
        prompt_tokens=reply.prompt_tokens,
        completion_tokens=reply.completion_tokens,
    )
