"""A session through the Batch API: requests gather into batches, which are submitted once and fetched by whoever comes later.

Each batch is a file beside the journal, and a name in its metadata. Before a batch is created the endpoint is asked whether it
has one of that name: an answer that was lost, or a process that died, creates no second one.
"""

import asyncio
import contextlib
import hashlib
import json
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable
from pathlib import Path
from typing import Any, Self, TypeVar

from e5jax.errors import ConfigError
from e5jax.llm_client import completion
from e5jax.llm_client.client import Client, body
from e5jax.llm_client.config import Budget, Endpoint
from e5jax.llm_client.faults import FAULTS, Trouble
from e5jax.llm_client.journal import Journal
from e5jax.llm_client.request import Failure, Reply, Request, Stop
from e5jax.llm_client.rows import Key, Rows, answers, keep, line_of, noted, read_rows, said

QUIET = 0.5  # seconds without a new request, after which a batch goes as it is
ROWS = 50_000  # most that the API takes
ENDS = ("completed", "expired", "cancelled")
Answer = TypeVar("Answer")


class Batch:
    """`complete` waits for hours: call it for as many requests at once as a batch shall have."""

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
        self._most = min(ROWS, endpoint.concurrency)
        self._asked: dict[Key, tuple[Request, asyncio.Future[Reply | Failure]]] = {}
        self._waiting: dict[Key, Request] = {}
        self._submitted: set[Key] = set()
        self._tries: Counter[Key] = Counter()
        self._arrived = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._stop: Stop | None = None
        self._given_up = 0
        self._sent = journal.ledger.requests

    async def __aenter__(self) -> Self:
        names = [name for name, line in self._journal.batches.items() if line["state"] != "done"]
        for name, rows in [(name, self._kept(name)) for name in names]:
            self._submitted.update(rows)
            self._start(self._see_through(name, rows, resumed=True))
        self._start(self._gather())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._end(Stop("the session is closed; the same command fetches what is under way"))
        for task in (tasks := list(self._tasks)):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def stop(self, why: str) -> None:
        self._end(Stop(why))

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
        if self._stop is not None:
            raise Stop(*self._stop.args)
        if request.key not in self._asked:
            self._asked[request.key] = request, asyncio.get_running_loop().create_future()
            if request.key not in self._submitted:
                self._waiting[request.key] = request
                self._arrived.set()
        return await asyncio.shield(self._asked[request.key][1])

    def _spool(self, name: str) -> Path:
        return self._journal.path.parent / "batches" / f"{name}.jsonl"

    def _kept(self, name: str) -> Rows:
        if not (spool := self._spool(name)).is_file():
            raise ConfigError(
                f"{spool} is missing: it holds what a batch under way asks for; put it back"
            )
        return read_rows(spool.read_bytes())

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._end(error)

    def _end(self, why: BaseException, under_way: bool = True) -> None:
        """Nothing more is submitted, and nobody waits any longer; or only those do whose batch is under way."""
        self._stop = self._stop or (why if isinstance(why, Stop) else Stop(type(why).__name__))
        for key, (_, future) in self._asked.items():
            if not future.done() and (under_way or key not in self._submitted):
                future.set_exception(Stop(*why.args) if isinstance(why, Stop) else why)
                future.exception()  # who asked may be gone

    async def _gather(self) -> None:
        """Makes batches of what arrives: full ones, or what there is once nothing more comes."""
        while True:
            await self._arrived.wait()
            while len(self._waiting) < self._most and self._arrived.is_set():
                self._arrived.clear()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._arrived.wait(), QUIET)
            if why := self._journal.ledger.spent(self._budget, self._sent):
                self._end(Stop(why), under_way=False)
                return
            most = (
                self._most
                if self._budget.requests is None
                else min(self._most, self._budget.requests - self._sent)
            )
            requests = list(self._waiting.values())[:most]
            self._sent += len(requests)
            for request in requests:
                del self._waiting[request.key]
            self._arrived.clear()
            if self._waiting:
                self._arrived.set()
            self._submitted.update(request.key for request in requests)
            self._start(self._submit(requests))

    async def _submit(self, requests: list[Request]) -> None:
        rows = {
            request.key: body(request, self._model_of(request.id), self._client.dialect)
            for request in requests
        }
        content = b"".join(line_of(key, asked) for key, asked in rows.items())
        digest = hashlib.blake2b(content, digest_size=10).hexdigest()
        name = f"{self._journal.run}-{digest}"
        name += f"-{sum(known.startswith(name) for known in self._journal.batches)}"
        await asyncio.to_thread(keep, self._spool(name), content)
        tries = [self._try(request, rows[request.key]["model"], name) for request in requests]
        await self._journal.write(
            {"kind": "batch", "name": name, "state": "kept", "rows": len(rows)}, *tries
        )
        await self._see_through(name, rows, resumed=False)

    def _try(self, request: Request, model: str, name: str) -> dict[str, Any]:
        tokens = {"prompt": completion.prompt_tokens(request), "completion": request.max_tokens}
        return {
            "kind": "try",
            "id": request.id,
            "attempt": request.attempt,
            "model": model,
            **tokens,
            "batch": name,
        }

    async def _see_through(self, name: str, rows: Rows, resumed: bool) -> None:
        """From a kept file to journalled replies, from wherever it is."""
        known = self._journal.batches[name].get("batch_id")
        if known is None:
            if resumed:
                await asyncio.sleep(
                    self._endpoint.poll
                )  # what died may have sent something that is still on its way
            known = await self._create(name)
            await self._journal.write(
                {"kind": "batch", "name": name, "state": "submitted", "batch_id": known}
            )
        while (values := await self._persist(lambda: self._client.get(f"/batches/{known}"))).get(
            "status"
        ) not in ENDS:
            if values.get("status") == "failed":
                await self._journal.write({"kind": "batch", "name": name, "state": "done"})
                raise Stop(
                    f"the endpoint refuses a batch: {self._client.clean(json.dumps(values.get('errors')))}"
                )
            await asyncio.sleep(self._endpoint.poll)
        await self._take(name, rows, [line async for line in self._lines(values)])

    async def _create(self, name: str) -> str:
        """The id of the one batch of that name."""
        while True:
            if (found := await self._find(name)) is not None:
                return found
            file = await self._persist(
                lambda: self._client.upload(f"{name}.jsonl", self._spool(name).read_bytes())
            )
            answer = await self._client.create_batch(str(file.get("id")), name)
            if not isinstance(answer, Trouble):
                return str(answer.get("id"))
            if FAULTS[answer.fault].action != "retry":
                raise Stop(f"the endpoint refuses a batch: {answer.detail}")
            await asyncio.sleep(self._endpoint.poll)

    async def _find(self, name: str) -> str | None:
        query = {"limit": "100"}
        while True:
            page = await self._persist(lambda: self._client.get("/batches", **query))
            for batch in page.get("data", []):
                if (batch.get("metadata") or {}).get("name") == name:
                    return batch["id"]
            if not page.get("has_more"):
                return None
            query["after"] = page["last_id"]

    async def _persist(self, call: Callable[[], Awaitable[Answer | Trouble]]) -> Answer:
        """Tries again for as long as patience lasts. Raises Stop."""
        since = time.monotonic()
        while isinstance(answer := await call(), Trouble):
            if (
                FAULTS[answer.fault].action != "retry"
                or time.monotonic() - since > self._endpoint.patience
            ):
                raise Stop(f"{answer.fault}: {answer.detail}")
            await asyncio.sleep(max(answer.wait or 0.0, random.uniform(0, self._endpoint.poll)))  # noqa: S311  no secret
        return answer

    async def _lines(self, values: dict[str, Any]) -> AsyncIterator[bytes]:
        for field in ("output_file_id", "error_file_id"):
            if isinstance(file := values.get(field), str):
                for line in (
                    await self._persist(lambda file=file: self._client.content(file))
                ).split(b"\n"):
                    if line.strip():
                        yield line

    async def _take(self, name: str, rows: Rows, lines: Iterable[bytes]) -> None:
        """Journals what came back for each row, all at once, and tells who waits for it."""
        outcomes: dict[Key, Reply | Trouble] = {}
        for key, values in answers(lines):
            if key in rows and key not in outcomes:
                outcomes[key] = self._client.reply(key, rows[key]["model"], said(values, rows[key]))
        missing = {
            key: Trouble("row-missing", FAULTS["row-missing"].when)
            for key in rows
            if key not in outcomes
        }
        taken = {
            key: outcome
            for key, outcome in {**outcomes, **missing}.items()
            if self._journal.ledger.is_open(key)
        }
        told = [part for key, outcome in taken.items() for part in noted(key, outcome)]
        await self._journal.write(*told, {"kind": "batch", "name": name, "state": "done"})
        for key in rows:
            self._settle(key, outcomes.get(key) or missing[key])

    def _settle(self, key: Key, outcome: Reply | Trouble) -> None:
        """Answers who asked, or asks again. Raises Stop."""
        self._submitted.discard(key)
        self._tries[key] += 1
        action = None if isinstance(outcome, Reply) else FAULTS[outcome.fault].action
        if isinstance(outcome, Trouble) and action == "stop":
            raise Stop(f"{outcome.fault}: {outcome.detail}")
        if key not in self._asked:
            return
        request, future = self._asked[key]
        if action == "retry" and self._tries[key] < self._endpoint.tries:
            self._waiting[key] = request
            self._arrived.set()
            return
        self._given_up += action == "retry"
        del self._asked[key]
        future.set_result(
            outcome if isinstance(outcome, Reply) else Failure(*key, outcome.fault, outcome.detail)
        )
