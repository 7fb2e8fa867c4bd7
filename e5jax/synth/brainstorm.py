"""Gathers tasks: from files, then from a model."""

import math
from collections import Counter
from collections.abc import Sequence

from e5jax.llm_client.request import Reply, Request
from e5jax.synth.answer import Question, answer, each
from e5jax.synth.collection import Collection
from e5jax.synth.families import FAMILIES, Family
from e5jax.synth.plan import counts
from e5jax.synth.reasons import Rejection, UnfitError
from e5jax.synth.reply import read
from e5jax.synth.tasks import from_files, proposed

Call = tuple[Family, int]


async def gather_tasks(run: Collection) -> None:
    """Tasks of files first, then brainstormed ones, until there are as many as the examples need, or models repeat themselves."""
    for family, text, where in from_files(run.config.tasks.files):
        _add(run, family, text, where)
    following = Counter[str]()
    for _ in range(run.config.checks.attempts if run.config.tasks.brainstorm else 0):
        calls = [
            (family, following[family.name] + i)
            for family in FAMILIES
            for i in range(_missing_calls(run, family))
        ]
        if not calls or run.halt:
            return
        following.update(family.name for family, _ in calls)
        for (family, number), texts in (await _ask(run, calls)).items():
            for text in texts:
                _add(run, family.name, text, _id(family, number))


def _id(family: Family, number: int) -> str:
    return f"{family.name}/{number:06d}/brainstorm"


def _missing_calls(run: Collection, family: Family) -> int:
    if not family.brainstorms:
        return 0
    wanted = math.ceil(counts(run.config)[family.name] / run.config.tasks.examples_a_task)
    return max(0, math.ceil((wanted - len(run.tasks.of(family.name))) / run.config.tasks.per_call))


async def _ask(run: Collection, calls: Sequence[Call]) -> dict[Call, list[object]]:
    """What each of the requests proposes, in the order of the requests."""
    replies: dict[Call, list[object]] = {}

    async def ask(call: Call) -> None:
        replies[call] = await _brainstorm(run, *call)
        run.progress("tasks", len(replies), len(calls))

    await each(calls, ask, run.workers, run.halt)
    return {call: replies[call] for call in calls if call in replies}


async def _brainstorm(run: Collection, family: Family, number: int) -> list[object]:
    async def take(reply: Reply) -> list[object]:
        return proposed(read(reply), run.config.tasks.per_call)

    def request(attempt: int, doubled: bool) -> Request:
        return run.plan.brainstorm(family, number, attempt, doubled)

    question = Question(_id(family, number), request)
    found = await answer(
        run.session, question, take, run.config.checks.attempts, run.rejected.append, run.halt
    )
    return found if isinstance(found, list) else []


def _add(run: Collection, family: str, text: object, source: str) -> None:
    try:
        run.tasks.add(family, text, source)
    except UnfitError as unfit:
        run.rejected.append(Rejection(source, 0, unfit.reason, unfit.detail, "", ""))
