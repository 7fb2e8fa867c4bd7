"""The demo endpoint: chat completions, files and batches of OpenAI's protocol over HTTP, on this machine only.

A reply is a function of seed and request: asked again, it is the same. What was asked for is counted, as a bill would.
"""

import asyncio
import hashlib
import json
import math
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from random import Random
from typing import Any

from aiohttp import web

from examples.demo_endpoint import faults
from examples.demo_endpoint.batches import Batches
from examples.demo_endpoint.fill import fill

MOST = 100_000_000  # bytes of a request


@dataclass(frozen=True)
class Demo:
    """How the endpoint behaves."""

    seed: int = 0
    key: str = ""  # what it accepts; empty: anything
    latency: float = 0.0  # mean seconds of an answer
    requests_a_minute: float = math.inf
    tokens_a_minute: float = math.inf
    retry_after: bool = True  # says so when these are exceeded
    schemas: bool = True  # False: response_format is refused
    faults: Mapping[str, float] = field(
        default_factory=dict
    )  # by name, and in which share of the requests
    delay: float = 1.0  # seconds, of slow faults
    choose: Callable[[dict[str, Any], int], str | None] | None = (
        None  # the fault by body and times asked, instead of chance
    )
    batch_seconds: float = 0.5  # from its creation to its end
    batch_lag: float = 0.0  # seconds before a batch is created, and again until that is said
    batch_fault: Callable[[dict[str, Any]], str | None] | None = None  # of a row


class Allowance:
    """A bucket that holds what one second allows."""

    def __init__(self, a_minute: float):
        self._rate, self._level, self._at = a_minute / 60, a_minute / 60, time.monotonic()

    def wait(self, amount: float) -> float:
        """0 and it is taken, or seconds until there is as much."""
        if math.isinf(self._rate):
            return 0.0
        now = time.monotonic()
        self._level, self._at = (
            min(max(self._rate, amount), self._level + self._rate * (now - self._at)),
            now,
        )
        if self._level >= amount:
            self._level -= amount
            return 0.0
        return (amount - self._level) / self._rate


class Server:
    """One running endpoint and its counts."""

    def __init__(self, demo: Demo):
        self.demo = demo
        self.received: Counter[str] = Counter()  # requests by what became of them
        self.billed: Counter[str] = Counter()  # replies that were made, by digest of the request
        self.asked: Counter[str] = Counter()
        self.times: list[tuple[float, str]] = []  # of arrival, and what became of it
        self.pauses: list[tuple[float, float]] = []  # when a Retry-After was said, and until when
        self.batches = Batches(demo.batch_seconds, demo.batch_lag, self._row)
        self._random = Random(demo.seed)
        self._requests, self._tokens = (
            Allowance(demo.requests_a_minute),
            Allowance(demo.tokens_a_minute),
        )

    def application(self) -> web.Application:
        application = web.Application(client_max_size=MOST, middlewares=[self._guard])
        application.router.add_post("/v1/chat/completions", self._chat)
        application.router.add_post(
            "/openai/deployments/{model}/chat/completions", self._chat
        )  # as Azure has it
        application.router.add_get("/v1/models", self._models)
        application.router.add_get("/demo/counts", self._counts)
        application.add_routes(self.batches.routes())
        return application

    def counts(self) -> dict[str, Any]:
        """What it did so far."""
        return {
            "received": dict(self.received),
            "billed": sum(self.billed.values()),
            "billed_twice": sum(self.billed.values()) - len(self.billed),
            **self.batches.counts(),
        }

    @web.middleware
    async def _guard(self, request: web.Request, handler: Any) -> web.StreamResponse:
        given = _key(request)
        if self.demo.key and given != self.demo.key and not request.path.startswith("/demo"):
            self.received["401"] += 1
            return faults.status_response(faults.Status(401, "invalid_api_key"), given)
        return await handler(request)

    async def _models(self, _: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": [{"id": "demo", "object": "model"}]})

    async def _counts(self, _: web.Request) -> web.Response:
        return web.json_response(self.counts())

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        arrived, body = time.monotonic(), json.loads(await request.read())
        digest = digest_of(body)
        self.asked[digest] += 1
        fault = self._fault(body, self.asked[digest])
        response, outcome = self._refusal(body, fault, _key(request))
        self.received[outcome] += 1
        self.times.append((arrived, outcome))
        if response is not None:
            return response
        if self.demo.latency:
            random = Random(f"{self.demo.seed} {digest} {self.asked[digest]}")
            await asyncio.sleep(random.expovariate(1 / self.demo.latency))
        self.billed[digest] += 1
        completion = complete(body, self.demo.seed, fault)
        if fault in faults.WIRES:
            return await faults.WIRES[fault](
                request, json.dumps(completion).encode(), self.demo.delay
            )
        answer = (
            faults.BODIES[fault](completion)
            if fault in faults.BODIES
            else json.dumps(completion).encode()
        )
        return web.Response(body=answer, content_type=faults.JSON)

    def _fault(self, body: dict[str, Any], times: int) -> str | None:
        if self.demo.choose is not None:
            return self.demo.choose(body, times)
        point = self._random.random()
        for name, share in self.demo.faults.items():
            point -= share
            if point < 0:
                return name
        return None

    def _refusal(
        self, body: dict[str, Any], fault: str | None, key: str
    ) -> tuple[web.Response | None, str]:
        """An HTTP error that is due, and the name of what becomes of the request."""
        if fault in faults.STATUSES:
            status = faults.STATUSES[fault]
            if status.headers and status.status == 429:
                self._pause(1.0 if "Ms" not in status.headers[0][0] else 0.2)
            return faults.status_response(status, key), fault
        if "response_format" in body and not self.demo.schemas:
            error = {
                "message": "response_format is not supported",
                "param": "response_format",
                "code": None,
            }
            return web.json_response({"error": error}, status=400), "no-schemas"
        tokens = sum(len(message["content"]) for message in body["messages"]) / 4 + body.get(
            "max_tokens", 0
        )
        if wait := max(self._requests.wait(1), self._tokens.wait(tokens)):
            return self._too_fast(wait), "429"
        return None, fault or "answered"

    def _too_fast(self, wait: float) -> web.Response:
        seconds = math.ceil(wait)
        if self.demo.retry_after:
            self._pause(seconds)
        headers = (("Retry-After", str(seconds)),) if self.demo.retry_after else ()
        return faults.status_response(faults.Status(429, "rate_limit_exceeded", headers), "")

    def _pause(self, seconds: float) -> None:
        now = time.monotonic()
        self.pauses.append((now, now + seconds))

    def _row(self, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """Answers one line of a batch."""
        fault = self.demo.batch_fault(body) if self.demo.batch_fault else None
        if fault in faults.STATUSES:
            return faults.STATUSES[fault].status, {
                "error": {
                    "message": f"fault {fault} on demand",
                    "code": faults.STATUSES[fault].code,
                }
            }
        self.billed[digest_of(body)] += 1
        completion = complete(body, self.demo.seed, fault)
        return 200, json.loads(
            faults.BODIES[fault](completion)
        ) if fault in faults.BODIES else completion


def _key(request: web.Request) -> str:
    return request.headers.get("api-key") or request.headers.get("Authorization", "").removeprefix(
        "Bearer "
    )


def complete(body: dict[str, Any], seed: int, fault: str | None = None) -> dict[str, Any]:
    """The chat completion that answers a request; some faults are in what it says."""
    digest = digest_of(body)
    random = Random(f"{seed} {digest}")
    schema = body.get("response_format", {}).get("json_schema", {}).get("schema") or {
        "type": "object",
        "properties": {"text": {}},
    }
    content = json.dumps(fill(schema, random), ensure_ascii=False)
    prompt = "\n".join(message["content"] for message in body["messages"])
    if fault in faults.CONTENTS:
        content = faults.CONTENTS[fault](content, prompt)
    used, said = max(1, len(prompt) // 4), max(1, len(content) // 4)
    return {
        "id": f"chatcmpl-{digest}",
        "object": "chat.completion",
        "created": 0,
        "model": body["model"],
        "choices": [
            {
                "index": 0,
                "finish_reason": "stop",
                "message": {"role": "assistant", "content": content},
            }
        ],
        "usage": {"prompt_tokens": used, "completion_tokens": said, "total_tokens": used + said},
    }


def digest_of(body: dict[str, Any]) -> str:
    """Of a request, however it is written."""
    return hashlib.blake2b(json.dumps(body, sort_keys=True).encode(), digest_size=12).hexdigest()


@asynccontextmanager
async def serve(demo: Demo, port: int = 0) -> AsyncIterator[tuple[str, Server]]:
    """Runs it in this process; gives its base URL."""
    server = Server(demo)
    runner = web.AppRunner(server.application(), access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", port)
        await site.start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/v1", server
    finally:
        await runner.cleanup()
