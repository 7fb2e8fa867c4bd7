"""Asking a language model: requests a second, and what becomes of an allowed rate, beside the openai client on its own.

    python benchmarks/asking.py --output=asking.json

Needs the extra demo. The endpoint is the demo's, in a process of its own, on this machine.
"""

import argparse
import asyncio
import contextlib
import json
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import openai

from e5jax.llm_client.config import Budget, Endpoint, LanguageModel
from e5jax.llm_client.request import Message, Reply, Request
from e5jax.llm_client.session import open_session
from e5jax.synth.text_spec import Wanted, describe
from examples.demo_endpoint.server import Demo, serve

WORKERS = 64
KNOWN = 30  # seconds, after which a session should know what is allowed
PACES = (
    (10_000, 6_000, 0.2),
    (3_000, 1_200, 1.0),
    (1_000, 1_200, 1.0),
    (1_000, 600, 3.0),
)  # requests, a minute, seconds each
TEXTS = {
    name: {"type": "string", "description": describe(name, Wanted("en", 20, 120))}
    for name in ("query", "positive", "negative")
}
SCHEMA = {
    "type": "object",
    "properties": TEXTS,
    "required": list(TEXTS),
    "additionalProperties": False,
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--requests",
        type=int,
        default=5_000,
        metavar="N",
        help="as fast as they go (default: %(default)s)",
    )
    parser.add_argument("--output", type=Path, metavar="FILE", help="JSON")
    args = parser.parse_args()
    found: dict[str, list[dict[str, Any]]] = {"speed": [], "pace": []}
    for name, ask in KINDS.items():
        found["speed"].append({"by": name, **asyncio.run(speed(ask, args.requests))})
        print(json.dumps(found["speed"][-1]), flush=True)
    for name, case in (*(("e5jax", case) for case in PACES), ("openai", PACES[0])):
        found["pace"].append({"by": name, **asyncio.run(pace(KINDS[name], *case))})
        print(json.dumps(found["pace"][-1]), flush=True)
    if args.output:
        args.output.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


def request(number: int) -> Request:
    prompt = (
        f"{number}: " + "Write a query, a document that answers it and one that does not. " * 12
    )
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
            form: Any = {
                "type": "json_schema",
                "json_schema": {"name": "reply", "strict": True, "schema": SCHEMA},
            }
            async with slots:
                try:
                    await client.chat.completions.create(
                        model="demo", messages=asked, max_tokens=400, response_format=form
                    )
                except openai.APIError:
                    return False
            return True

        yield ask


KINDS = {"e5jax": ours, "openai": alone}


async def speed(
    kind: Callable[[str], contextlib.AbstractAsyncContextManager[Ask]], count: int
) -> dict[str, float]:
    """As fast as it goes."""
    program = (sys.executable, "-m", "examples.demo_endpoint")
    server = await asyncio.create_subprocess_exec(*program, stdout=asyncio.subprocess.PIPE)
    assert server.stdout is not None
    url = (await server.stdout.readline()).decode().strip()
    async with kind(url) as ask:
        await asyncio.gather(*map(ask, range(-WORKERS, 0)))
        wall, cpu = time.perf_counter(), time.process_time()
        answered = sum(await asyncio.gather(*map(ask, range(count))))
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    server.terminate()
    await server.wait()
    return {
        "answered": answered,
        "requests_a_second": count / wall,
        "cpu_ms_a_request": 1e3 * cpu / count,
    }


async def pace(
    kind: Callable[[str], contextlib.AbstractAsyncContextManager[Ask]],
    count: int,
    allowed: int,
    latency: float,
) -> dict[str, float]:
    """At an endpoint that allows so many a minute, which the client is not told."""
    sent: list[float] = []
    pauses: list[tuple[float, float]] = []  # from the arrival of a Retry-After on
    async with (
        serve(Demo(requests_a_minute=allowed, latency=latency)) as (url, server),
        kind(url) as ask,
    ):
        with _watched(sent, pauses):
            start = time.monotonic()
            answered = sum(await asyncio.gather(*map(ask, range(count))))
            end = time.monotonic()
    taken = [at for at, outcome in server.times if outcome == "answered"]
    return {
        "requests": count,
        "allowed_a_minute": allowed,
        "latency": latency,
        "answered": answered,
        "used_of_allowed": answered / ((end - start) * allowed / 60),
        "used_when_known": sum(at > start + KNOWN for at in taken)
        / ((max(taken) - start - KNOWN) * allowed / 60),
        "refused": server.received["429"] / len(server.times),
        "pauses": len(pauses),
        "before_retry_after": sum(any(said < at < until for said, until in pauses) for at in sent),
    }


@contextlib.contextmanager
def _watched(sent: list[float], pauses: list[tuple[float, float]]) -> Iterator[None]:
    """Notes when requests leave and refusals arrive, whoever sends them."""
    send = httpx2.AsyncClient.send

    async def noted(self: httpx2.AsyncClient, *args: Any, **kwargs: Any) -> httpx2.Response:
        sent.append(time.monotonic())
        response = await send(self, *args, **kwargs)
        if "retry-after" in response.headers:
            pauses.append(
                (time.monotonic(), time.monotonic() + float(response.headers["retry-after"]))
            )
        return response

    httpx2.AsyncClient.send = noted
    try:
        yield
    finally:
        httpx2.AsyncClient.send = send


if __name__ == "__main__":
    main()
