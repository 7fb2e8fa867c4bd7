"""The one home of the openai client: a request flows out, a reply or the trouble with it comes back. Never raises for either.

It is asked for plain HTTP answers, read by `completion`: its own models of them believe what the endpoint says. Its retries
are off; `session` has the only ones.
"""

import asyncio
import sys
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from typing import Any, NamedTuple, Self

import httpx2
import openai

from e5jax.errors import RecordError
from e5jax.jsonl import parse_object
from e5jax.llm_client import completion
from e5jax.llm_client.config import Endpoint, Format
from e5jax.llm_client.faults import FAULTS, Trouble, of_status, wait_of
from e5jax.llm_client.keys import OPENAI, Secrets, base_url
from e5jax.llm_client.request import Reply, Request
from e5jax.llm_client.transport import EncodedError, TooLongError, Transport

CONNECT = 10.0  # seconds
URL = "/v1/chat/completions"  # as batches name it
LOWER: dict[str, Format] = {"schema": "json", "json": "text"}
_UNFIT = ("bad-request", "unprocessable")


class Dialect(NamedTuple):
    """What an endpoint takes."""

    format: Format
    limit: str  # the name of the field for the most tokens
    sampling: bool = True  # temperature and top_p


class Client:
    """Open with `async with`."""

    def __init__(self, endpoint: Endpoint):
        self._endpoint, self._secrets, address = endpoint, Secrets(endpoint), base_url(endpoint)
        transport = Transport(endpoint.reply_bytes, endpoint.concurrency, endpoint.proxies)
        common: dict[str, Any] = {
            "api_key": self._secrets.key,
            "max_retries": 0,
            "timeout": httpx2.Timeout(endpoint.timeout, connect=min(CONNECT, endpoint.timeout)),
            "default_headers": self._secrets.headers,
            "http_client": httpx2.AsyncClient(
                transport=transport, trust_env=False, follow_redirects=False
            ),
        }
        if endpoint.azure_version:
            self._openai = openai.AsyncAzureOpenAI(
                azure_endpoint=address, api_version=endpoint.azure_version, **common
            )
        else:
            self._openai = openai.AsyncOpenAI(base_url=address, **common)
        best: Format = "schema" if endpoint.format == "auto" else endpoint.format
        hosted = address == OPENAI or bool(endpoint.azure_version)
        self._best = Dialect(best, "max_completion_tokens" if hosted else "max_tokens")
        self._settled: dict[tuple[str, bool], Dialect] = {}
        self._settling: defaultdict[tuple[str, bool], asyncio.Lock] = defaultdict(asyncio.Lock)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._openai.close()

    @asynccontextmanager
    async def place(self, request: Request, model: str) -> AsyncIterator[None]:
        """To `ask` within. The first request of its kind finds out what the endpoint takes, and the others wait for that here."""
        kind = _kind(request, model)
        if kind not in self._settled:
            async with self._settling[kind]:
                if kind not in self._settled:
                    yield
                    return
        yield

    async def ask(self, request: Request, model: str) -> Reply | Trouble:
        """Sends it once, or more often until it is known what the endpoint takes."""
        kind = _kind(request, model)
        return await (
            self._ask(request, model, self._settled[kind])
            if kind in self._settled
            else self._settle(request, kind)
        )

    async def _settle(self, request: Request, kind: tuple[str, bool]) -> Reply | Trouble:
        dialect = self._best
        while True:
            answer = await self._ask(request, kind[0], dialect)
            if isinstance(answer, Reply):
                self._settled[kind] = dialect
                return answer
            lower = (
                _lower(dialect, answer.detail, self._endpoint.format == "auto" and kind[1])
                if answer.fault in _UNFIT
                else None
            )
            if lower is None:
                return answer
            print(
                f"synth: {kind[0]} does not take {_difference(dialect, lower)}: {answer.detail}",
                file=sys.stderr,
            )
            dialect = lower

    async def _ask(self, request: Request, model: str, dialect: Dialect) -> Reply | Trouble:
        answer = await self.send(
            self._openai.post(
                "/chat/completions", body=body(request, model, dialect), cast_to=httpx2.Response
            )
        )
        if isinstance(answer, Trouble):
            return answer
        return self.reply(
            request.key, model, completion.parse(answer, completion.prompt_tokens(request))
        )

    def reply(
        self, key: tuple[str, int], model: str, said: completion.Completion | Trouble
    ) -> Reply | Trouble:
        """What was said, without secrets."""
        if isinstance(said, Trouble):
            return said._replace(detail=self.clean(said.detail))
        return Reply(
            *key,
            self._secrets.redact(said.text),
            said.finish,
            model,
            said.prompt_tokens,
            said.completion_tokens,
        )

    @property
    def dialect(self) -> Dialect:
        """The best there is, for batches, which cannot find out."""
        return self._best

    async def get(self, path: str, **query: str) -> dict[str, Any] | Trouble:
        """An object of the endpoint's."""
        return _object(
            await self.send(
                self._openai.get(path, cast_to=httpx2.Response, options={"params": query})
            )
        )

    async def content(self, file: str) -> bytes | Trouble:
        """The content of a file of the endpoint's."""
        return await self.send(self._openai.get(f"/files/{file}/content", cast_to=httpx2.Response))

    async def create_batch(self, file: str, name: str) -> dict[str, Any] | Trouble:
        """Sends it once: only a look at the endpoint's list tells whether a lost answer was a yes."""
        asked = {
            "input_file_id": file,
            "endpoint": URL,
            "completion_window": "24h",
            "metadata": {"name": name},
        }
        return _object(
            await self.send(self._openai.post("/batches", body=asked, cast_to=httpx2.Response))
        )

    async def upload(self, name: str, content: bytes) -> dict[str, Any] | Trouble:
        """A file for a batch."""

        async def send() -> httpx2.Response:
            answer = await self._openai.files.with_raw_response.create(
                file=(name, content), purpose="batch"
            )
            return answer.http_response

        return _object(await self.send(send()))

    async def send(self, response: Awaitable[httpx2.Response]) -> bytes | Trouble:
        """The body of a success, or what went wrong. Exceptions of the library hold the key: none leaves this function."""
        try:
            return (await response).content
        except openai.APIStatusError as error:
            code, message = completion.code_of(error.response.content)
            wait = wait_of(error.response.headers, time.time())
            return Trouble(
                of_status(error.status_code, code),
                self.clean(f"HTTP {error.status_code}: {message}"),
                wait,
            )
        except openai.APIConnectionError as error:
            fault = _of_connection(error)
            return Trouble(
                fault, self.clean(f"{FAULTS[fault].when} ({type(error.__cause__).__name__})")
            )

    def clean(self, text: str) -> str:
        """One line of printable text without secrets."""
        printable = "".join(
            character if character.isprintable() else " "
            for character in self._secrets.redact(text)
        )
        return " ".join(printable.split())[:300]


def body(request: Request, model: str, dialect: Dialect) -> dict[str, Any]:
    """A chat completion's, for HTTP and for batches."""
    values: dict[str, Any] = {
        "model": model,
        "messages": [message._asdict() for message in request.messages],
        dialect.limit: request.max_tokens,
    }
    if dialect.sampling:
        values |= {"temperature": request.temperature, "top_p": request.top_p}
    if request.schema is not None and dialect.format == "schema":
        schema = {"name": "reply", "strict": True, "schema": request.schema}
        values["response_format"] = {"type": "json_schema", "json_schema": schema}
    elif request.schema is not None and dialect.format == "json":
        values["response_format"] = {"type": "json_object"}
    return values


def _kind(request: Request, model: str) -> tuple[str, bool]:
    return model, request.schema is not None


def _object(answer: bytes | Trouble) -> dict[str, Any] | Trouble:
    if isinstance(answer, Trouble):
        return answer
    try:
        return parse_object(answer)
    except RecordError as error:
        return Trouble("not-json", str(error)[:200])


def _of_connection(error: openai.APIConnectionError) -> str:
    match error.__cause__:
        case TooLongError():
            return "too-long"
        case EncodedError():
            return "encoded"
        case httpx2.ConnectError():
            return "unreachable"
        case httpx2.TimeoutException():
            return "timeout"
    return "disconnected"


def _lower(dialect: Dialect, said: str, formats: bool) -> Dialect | None:
    """The next dialect to try once an endpoint has refused this one with these words; None when that was the last."""
    if "max_completion_tokens" in said and dialect.limit == "max_tokens":
        return dialect._replace(limit="max_completion_tokens")
    if ("temperature" in said or "top_p" in said) and dialect.sampling:
        return dialect._replace(sampling=False)
    return (
        dialect._replace(format=LOWER[dialect.format])
        if formats and dialect.format in LOWER
        else None
    )


def _difference(old: Dialect, new: Dialect) -> str:
    if old.format != new.format:
        return {"schema": "a JSON schema", "json": "JSON objects"}[old.format]
    return old.limit if old.limit != new.limit else "temperature and top_p"
