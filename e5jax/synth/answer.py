"""One question to a model, asked again until its reply is fit or there is no use in asking."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator
from typing import NamedTuple, TypeVar

from e5jax.llm_client.request import Failure, Reply, Request, Session, Stop
from e5jax.synth.reasons import REASONS, Rejection, UnfitError

EXCERPT = 200  # characters of a reply that is not taken
Item = TypeVar("Item")
Taken = TypeVar("Taken")


class Halt:
    """Whether the run is to end early, and why: set by a signal or by the session's Stop."""

    def __init__(self) -> None:
        self.why: Stop | None = None

    def __bool__(self) -> bool:
        return self.why is not None

    def set(self, why: Stop) -> None:
        """The first reason stays."""
        self.why = self.why or why


class Question(NamedTuple):
    """What is asked for under one id: the request of an attempt, the second argument allowing twice the tokens."""

    id: str
    request: Callable[[int, bool], Request]
    first: int = 0  # attempt


async def answer(
    session: Session,
    question: Question,
    take: Callable[[Reply], Awaitable[Taken]],
    attempts: int,
    reject: Callable[[Rejection], object],
    halt: Halt,
) -> Taken | Rejection | None:
    """What `take` makes of the first reply that it does not find UnfitError; the last rejection; or None if the run is halted."""
    doubled, last = False, None
    for attempt in range(question.first, attempts):
        if halt:
            return None
        outcome = await session.complete(question.request(attempt, doubled))
        if isinstance(outcome, Failure):
            last = Rejection(question.id, attempt, outcome.reason, outcome.detail, "", "")
            reject(last)
            return last
        try:
            return await take(outcome)
        except UnfitError as unfit:
            reason = "truncated-twice" if unfit.reason == "truncated" and doubled else unfit.reason
            last = Rejection(
                question.id, attempt, reason, unfit.detail, outcome.model, _excerpt(outcome.text)
            )
            reject(last)
            doubled = reason == "truncated"
            if REASONS[reason].action == "drop":
                return last
    return last


def _excerpt(text: str) -> str:
    """The beginning of a reply, in characters that any file can hold."""
    return text[:EXCERPT].encode("utf-8", "backslashreplace").decode()


async def each(
    items: Iterable[Item], work: Callable[[Item], Awaitable[object]], workers: int, halt: Halt
) -> None:
    """Works on all items, `workers` at a time. A Stop ends it once what is under way has come to its end."""
    source = iter(items)

    async def worker(source: Iterator[Item]) -> None:
        for item in source:
            if halt:
                return
            try:
                await work(item)
            except Stop as stop:
                halt.set(stop)

    async with asyncio.TaskGroup() as group:
        for _ in range(workers):
            group.create_task(worker(source))
