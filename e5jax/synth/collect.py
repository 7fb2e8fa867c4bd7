"""Asks for all examples of a plan and keeps those that are fit. What is kept does not depend on the order of replies."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from e5jax.data.records import check_example
from e5jax.errors import RecordError
from e5jax.llm_client.request import Reply, Request
from e5jax.synth.answer import EXCERPT, Question, answer, each
from e5jax.synth.checks import Found, check
from e5jax.synth.collection import Collection
from e5jax.synth.config import Synth
from e5jax.synth.details import Details, Entry, parse_entry
from e5jax.synth.distinct import Distinct
from e5jax.synth.families import FAMILIES
from e5jax.synth.judge import grade
from e5jax.synth.plan import Asked, Plan, Slot, counts, example
from e5jax.synth.reasons import Rejection, UnfitError
from e5jax.synth.reply import read, strings


class Counts(NamedTuple):
    """What became of the examples of one family: asked = kept + dropped + open."""

    asked: int
    kept: int
    dropped: int
    open: int  # not settled when the run was halted, or without a task


async def gather_examples(run: Collection) -> dict[str, Counts]:
    """Fills the shelf. What turns out to be a duplicate once all are there is asked for again, until attempts are used up."""
    tasks = {family.name: run.tasks.of(family.name) for family in FAMILIES}
    planned = {name: count for name, count in counts(run.config).items() if count}
    with Distinct(run.config.checks, planned) as distinct:
        await _round(
            run,
            sum(1 for _ in _slots(run.plan, tasks)),
            ((slot, 0) for slot in _slots(run.plan, tasks)),
        )
        again = list(_without_duplicates(run, distinct, _slots(run.plan, tasks)))
        while again and not run.halt:
            await _round(run, len(again), again)
            again = list(_without_duplicates(run, distinct, [slot for slot, _ in again]))
    kept = Counter(map(_family_of, run.shelf))
    dropped = Counter(map(_family_of, run.dropped))
    return {
        name: Counts(count, kept[name], dropped[name], count - kept[name] - dropped[name])
        for name, count in planned.items()
    }


def _slots(plan: Plan, tasks: Mapping[str, Sequence[str]]) -> Iterator[Slot]:
    return (slot for family in FAMILIES for slot in plan.slots(family, tasks[family.name]))


def _family_of(slot: str) -> str:
    return slot.partition("/")[0]


async def _round(run: Collection, total: int, slots: Iterable[tuple[Slot, int]]) -> None:
    """Asks for one example a slot, from this attempt on."""
    done = 0

    async def settle(item: tuple[Slot, int]) -> None:
        nonlocal done
        await _settle(run, *item)
        done += 1
        run.progress("examples", done, total)

    await each(slots, settle, run.workers, run.halt)


async def _settle(run: Collection, slot: Slot, first: int) -> None:
    """Asks for one example until one is fit, and shelves it."""
    asked: dict[int, Asked] = {}

    def request(attempt: int, doubled: bool) -> Request:
        asked[attempt] = run.plan.ask(slot, attempt, doubled)
        return asked[attempt].request

    async def take(reply: Reply) -> str:
        one = asked[reply.attempt]
        values, found = fit(one, reply, run.config)
        graded = await grade(run.session, run.plan, one, values, run.config.judge)
        return line(one, reply, values, found, graded)

    question = Question(slot.id, request, first)
    found = await answer(
        run.session, question, take, run.config.checks.attempts, run.rejected.append, run.halt
    )
    if isinstance(found, str):
        run.shelf.put(slot.id, found)
    elif found is not None:
        run.dropped[slot.id] = found.reason


def _without_duplicates(
    run: Collection, distinct: Distinct, slots: Iterable[Slot]
) -> Iterator[tuple[Slot, int]]:
    """Takes duplicates off the shelf, and yields those that may be asked for again, with their next attempt."""
    for slot in slots:
        if slot.id not in run.shelf:
            continue
        details, made = parse_entry(run.shelf.get(slot.id))
        try:
            distinct.add(slot.family, made)
        except UnfitError as unfit:
            run.shelf.drop(slot.id)
            run.rejected.append(
                Rejection(
                    slot.id,
                    details.attempt,
                    unfit.reason,
                    unfit.detail,
                    details.model,
                    made.query[:EXCERPT],
                )
            )
            if details.attempt + 1 < run.config.checks.attempts:
                yield slot, details.attempt + 1
            else:
                run.dropped[slot.id] = unfit.reason


def fit(asked: Asked, reply: Reply, config: Synth) -> tuple[dict[str, str], Found]:
    """The texts of a reply, and what was found out about them. Raises UnfitError."""
    family = asked.slot.family
    values = strings(read(reply), tuple(part.name for part in family.parts))
    found = check(family, values, asked.wanted, asked.given, config.checks)
    try:
        check_example(example(asked, values))
    except RecordError as error:
        raise UnfitError("characters", str(error)) from error
    return values, found


def line(
    asked: Asked, reply: Reply, values: dict[str, str], found: Found, graded: int | None
) -> str:
    """A line of the shelf."""
    details = Details(
        asked.slot.id,
        asked.slot.family.name,
        asked.slot.language,
        asked.slot.target,
        found.identified,
        reply.model,
        asked.attempt,
        asked.template,
        asked.choices,
        {role: found.words[part.name] for role, part in asked.slot.family.roles.items()},
        graded,
        reply.prompt_tokens,
        reply.completion_tokens,
    )
    return Entry(details, example(asked, values)).to_json()
