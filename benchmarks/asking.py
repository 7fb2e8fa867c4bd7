"""Asking a language model: requests a second, and what becomes of an allowed rate, beside the openai client on its own.

    python benchmarks/asking.py --output=asking.json

Needs the extra demo. The endpoint is the demo's, in a process of its own, on this machine.
"""

import argparse
import asyncio
import contextlib
import json
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx2
import openai

from e5jax.synth.config import Budget, Endpoint, LanguageModel
from e5jax.synth.demo.process import reachable
from e5jax.synth.demo.server import Demo, serve
from e5jax.synth.request import Message, Reply, Request, Wanted, describe
from e5jax.synth.session import open_session

WORKERS = 64
TEXTS = {
    name: {"type": "string", "description": describe(name, Wanted("en", 20, 120))} for name in ("query", "positive", "negative")
}
SCHEMA = {"type": "object", "properties": TEXTS, "required": list(TEXTS), "additionalProperties": False}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=5_000, metavar="N", help="of each run (default: %(default)s)")
    parser.add_argument(
        "--allowed", type=int, default=6_000, metavar="N", help="a minute, of the paced runs (default: %(default)s)"
    )
    parser.add_argument("--output", type=Path, metavar="FILE", help="JSON")
    args = parser.parse_args()
    found = {
        "speed": {"e5jax": asyncio.run(speed(ours, args.requests)), "openai": asyncio.run(speed(alone, args.requests))},
        "pace": {name: asyncio.run(pace(ask, args.requests, args.allowed)) for name, ask in (("e5jax", ours), ("openai", alone))},
    }
    print(json.dumps(found, indent=2))
    if args.output:
        args.output.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


def request(number: int) -> Request:
    prompt = f"{number}: " + "Write a query, a document that answers it and one that does not. " * 12
    return Request(f"benchmark/{number}", (Message("user", prompt),), SCHEMA, 1.0, 1.0, 400)


Ask = Callable[[int], Awaitable[bool]]


@contextlib.asynccontextmanager
async def ours(url: str) -> AsyncIterator[Ask]:
    """A session: journalled, durable."""
    target = Endpoint(models=(LanguageModel("demo"),), base_url=url, concurrency=WORKERS)
    with tempfile.TemporaryDirectory() as folder:
        async with open_session(target, Budget(), Path(folder) / "journal.jsonl", 0) as session:

            async def ask(number: int) -> bool:
                return isinstance(await session.complete(request(number)), Reply)

            yield ask


@contextlib.asynccontextmanager
async def alone(url: str) -> AsyncIterator[Ask]:
    """The client with its defaults: two retries, replies parsed into its models, nothing kept."""
    async with openai.AsyncOpenAI(base_url=url, api_key="none") as client:
        slots = asyncio.Semaphore(WORKERS)

        async def ask(number: int) -> bool:
            asked: Any = [message._asdict() for message in request(number).messages]
            form: Any = {"type": "json_schema", "json_schema": {"name": "reply", "strict": True, "schema": SCHEMA}}
            async with slots:
                try:
                    await client.chat.completions.create(model="demo", messages=asked, max_tokens=400, response_format=form)
                except openai.APIError:
                    return False
            return True

        yield ask


async def speed(kind: Callable[[str], contextlib.AbstractAsyncContextManager[Ask]], count: int) -> dict[str, float]:
    """As fast as it goes."""
    target = Endpoint(base_url="demo")
    async with reachable(target) as there, kind(there.base_url) as ask:
        await asyncio.gather(*map(ask, range(-WORKERS, 0)))
        wall, cpu = time.perf_counter(), time.process_time()
        answered = sum(await asyncio.gather(*map(ask, range(count))))
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return {"answered": answered, "requests_a_second": count / wall, "cpu_ms_a_request": 1e3 * cpu / count}


async def pace(kind: Callable[[str], contextlib.AbstractAsyncContextManager[Ask]], count: int, allowed: int) -> dict[str, float]:
    """At an endpoint that allows so many a minute, which the client is not told. After half a minute it should know."""
    sent: list[float] = []
    pauses: list[tuple[float, float]] = []  # from the arrival of a Retry-After on
    _watch(sent, pauses)
    async with serve(Demo(requests_a_minute=allowed, latency=0.2)) as (url, server), kind(url) as ask:
        start = time.monotonic()
        answered = sum(await asyncio.gather(*map(ask, range(count))))
        end = time.monotonic()
    known = start + 30
    good = sum(at > known for at, outcome in server.times if outcome == "answered")
    refused = server.received["429"]
    early = sum(any(said < at < until for said, until in pauses) for at in sent)
    return {
        "answered": answered,
        "used_of_allowed": good / ((end - known) * allowed / 60) if end > known + 5 else float("nan"),
        "refused": refused / len(server.times),
        "before_retry_after": early,
    }


def _watch(sent: list[float], pauses: list[tuple[float, float]]) -> None:
    """Notes when requests leave and refusals arrive, whoever sends them."""
    send = httpx2.AsyncClient.send

    async def noted(self: httpx2.AsyncClient, *args: Any, **kwargs: Any) -> httpx2.Response:
        sent.append(time.monotonic())
        response = await send(self, *args, **kwargs)
        if "retry-after" in response.headers:
            pauses.append((time.monotonic(), time.monotonic() + float(response.headers["retry-after"])))
        return response

    httpx2.AsyncClient.send = noted


if __name__ == "__main__":
    main()
