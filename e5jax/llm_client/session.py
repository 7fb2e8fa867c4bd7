"""A session with an endpoint: answers requests from the journal or from a model, and keeps within limits and budget.

The one retry layer. Whoever asks may be cancelled at any time: what is on its way arrives, and is journalled.
"""

import asyncio
import hashlib
import random
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

from e5jax.llm_client import completion
from e5jax.llm_client.batch import Batch
from e5jax.llm_client.client import Client
from e5jax.llm_client.config import Budget, Endpoint, LanguageModel
from e5jax.llm_client.faults import FAULTS, Trouble
from e5jax.llm_client.journal import Journal
from e5jax.llm_client.keys import check_endpoint
from e5jax.llm_client.limiter import Limiter
from e5jax.llm_client.request import Failure, Reply, Request, Session, Stop
from e5jax.llm_client.stop_event import StopEvent
from e5jax.llm_client.transport import LEAVING
from e5jax.llm_client.usage import Usage, check_budget

FIRST_WAIT, LONGEST_WAIT = 1.0, 60.0  # seconds between two tries, before jitter
FIRST_SLOTS = 4  # requests on their way at the start; each answer makes room for one more, up to the concurrency
DRAIN = 10.0  # seconds that replies on their way get when a session is stopped or closed
EVERYTHING = 2**53  # of 64 random bits, floats keep as many


@asynccontextmanager
async def open_session(
    endpoint: Endpoint, budget: Budget, journal: Path, seed: int
) -> AsyncIterator[Session]:
    """Checks the configuration, opens the journal, and closes both when what is on its way has arrived."""
    check_endpoint(endpoint)
    check_budget(budget, endpoint.models)
    ledger = Usage(endpoint.models)
    kind = Chat if endpoint.api == "chat" else Batch
    async with (
        Client(endpoint) as client,
        Journal(journal, ledger) as book,
        kind(endpoint, budget, client, book, partial(choose, endpoint.models, seed)) as session,
    ):
        yield session


def choose(models: Sequence[LanguageModel], seed: int, name: str) -> str:
    """The model that answers the request of that id: by hash, each by its share, whatever the order of requests."""
    digest = hashlib.blake2b(f"{seed}\0{name}".encode(), digest_size=8).digest()
    point = int.from_bytes(digest) % EVERYTHING / EVERYTHING * sum(model.share for model in models)
    for model in models:
        point -= model.share
        if point < 0:
            return model.name
    return models[-1].name


class Chat:
    """Chat completions. `complete` may be called any number of times at once."""

    def __init__(
        self,
        endpoint: Endpoint,
        budget: Budget,
        client: Client,
        journal: Journal,
        model_of: Callable[[str], str],
    ):
        self._endpoint, self._budget, self._client, self._journal, self._model_of = (
            endpoint,
            budget,
            client,
            journal,
            model_of,
        )
        self._limiter = Limiter(endpoint.requests_a_minute, endpoint.tokens_a_minute)
        self._open = min(FIRST_SLOTS, endpoint.concurrency)
        self._slots = asyncio.Semaphore(self._open)
        self._turn = asyncio.Lock()
        self._tasks: dict[tuple[str, int], asyncio.Task[Reply | Failure]] = {}
        self._brake = StopEvent()
        self._sent = journal.ledger.requests
        self._announced = self._given_up = 0
        self._trouble_since: float | None = None  # since when nothing was answered

    async def __aenter__(self) -> "Chat":
        return self

    async def __aexit__(self, *_: object) -> None:
        self._brake.pull("the session is closed")
        if self._tasks:
            await asyncio.wait(self._tasks.values(), timeout=DRAIN)
        self._abandon()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    def stop(self, why: str) -> None:
        self._brake.pull(why)
        asyncio.get_running_loop().call_later(DRAIN, self._abandon)

    def _abandon(self) -> None:
        for task in self._tasks.values():
            task.cancel()

    def totals(self) -> dict[str, Any]:
        return {
            **self._journal.ledger.totals(),
            "given_up": self._given_up,
            "damaged_lines": self._journal.damaged,
        }

    async def complete(self, request: Request) -> Reply | Failure:
        """Raises Stop."""
        if (outcome := self._journal.outcome(request.key)) is not None:
            return outcome
        if request.key not in self._tasks:
            task = self._tasks[request.key] = asyncio.create_task(self._answer(request))
            task.add_done_callback(partial(self._forget, request.key))
        task = self._tasks[request.key]
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if task.cancelled():  # it has been on its way for too long
                self._brake.check()
            raise

    def _forget(self, key: tuple[str, int], task: asyncio.Task[Reply | Failure]) -> None:
        del self._tasks[key]
        if not task.cancelled():
            task.exception()  # who asked may be gone

    async def _answer(self, request: Request) -> Reply | Failure:
        async with self._slots:
            model = self._model_of(request.id)
            outcome = await self._try(request, model)
            for number in range(self._endpoint.tries - 1):
                if isinstance(outcome, Reply | Failure):
                    return outcome
                self._consider(outcome)
                longest = min(LONGEST_WAIT, FIRST_WAIT * 2**number)
                await self._brake.sleep(random.uniform(0, longest))  # noqa: S311  no secret
                outcome = await self._try(request, model)
            if isinstance(outcome, Reply | Failure):
                return outcome
            self._consider(outcome)
            self._given_up += 1
            detail = f"{self._endpoint.tries} tries, the last: {outcome.detail}"
            return Failure(request.id, request.attempt, outcome.fault, detail)

    async def _try(self, request: Request, model: str) -> Reply | Failure | Trouble:
        async with self._client.place(request, model):
            return await self._send(request, model)

    async def _send(self, request: Request, model: str) -> Reply | Failure | Trouble:
        """Announces it in the journal, sends it, and notes what came of it."""
        prompt, key = (
            completion.prompt_tokens(request),
            {"id": request.id, "attempt": request.attempt},
        )
        taken = prompt + request.max_tokens
        await self._wait_turn(taken)
        announced = {"kind": "try", **key, "number": self._announced, "model": model}
        LEAVING.set(partial(self._journal.mark, self._announced))
        self._announced += 1
        await self._journal.write({**announced, "prompt": prompt, "completion": request.max_tokens})
        try:
            while (
                wait := self._limiter.paused_until - time.monotonic()
            ) > 0:  # since the turn came
                await self._brake.sleep(wait)
            sent = time.monotonic()
            answer = await self._client.ask(request, model)
        except Stop:
            await self._journal.write({"kind": "withdrawn", **key})
            raise
        if isinstance(answer, Reply):
            self._heard()
            self._limiter.answered(taken, answer.prompt_tokens + answer.completion_tokens)
            await self._journal.write({"kind": "reply", **answer._asdict()})
            return answer
        fault = {"kind": "fault", **key, "fault": answer.fault, "detail": answer.detail}
        action = FAULTS[answer.fault].action
        if action == "drop":
            self._heard()
            failure = Failure(request.id, request.attempt, answer.fault, answer.detail)
            await self._journal.write(fault, {"kind": "failure", **failure._asdict()})
            return failure
        if action == "stop":
            self._brake.pull(f"{answer.fault}: {answer.detail}")
        elif answer.fault == "rate-limit":
            self._limiter.refused(time.monotonic(), sent, answer.wait)
        else:
            self._limiter.broke(time.monotonic())
            self._limiter.pause(time.monotonic(), answer.wait or 0.0)
        await self._journal.write(fault)
        return answer

    def _heard(self) -> None:
        """An answer: the endpoint is there, and gets one more request at a time."""
        self._trouble_since = None
        if self._open < self._endpoint.concurrency:
            self._open += 1
            self._slots.release()

    async def _wait_turn(self, tokens: int) -> None:
        """Until the limiter lets one more go, first come first served. Raises Stop."""
        async with self._turn:
            while wait := self._limiter.take(time.monotonic(), tokens):
                await self._brake.sleep(wait)
            if why := self._journal.ledger.spent(self._budget, self._sent):
                self._brake.pull(why)
            self._brake.check()
            self._sent += 1

    def _consider(self, trouble: Trouble) -> None:
        """Raises Stop when trying again is no use."""
        self._trouble_since = self._trouble_since or time.monotonic()
        silent = time.monotonic() - self._trouble_since
        if (trouble.wait or 0) > self._endpoint.patience:
            self._brake.pull(
                f"the endpoint asks to wait {trouble.wait:,.0f} s, and endpoint.patience={self._endpoint.patience:g}"
            )
        elif silent > self._endpoint.patience:
            self._brake.pull(
                f"no answer for {silent:,.0f} s; the last trouble was {trouble.fault}: {trouble.detail}"
            )
        self._brake.check()
