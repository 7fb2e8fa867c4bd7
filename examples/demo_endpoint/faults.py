"""Everything that an endpoint can get wrong, by name, for the demo server to do on demand."""

import asyncio
import contextlib
import copy
import email.utils
import gzip
import json
import time
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

from aiohttp import web

JSON = "application/json"
BOMB, MEMBER = 200_000_000, 1_000_000  # bytes that a compressed body of some 200 KB becomes
LONG = 10_000_000


class Status(NamedTuple):
    """An HTTP error."""

    status: int
    code: str | None = None
    headers: tuple[tuple[str, str], ...] = ()


def _after(value: str, name: str = "Retry-After") -> Status:
    return Status(429, "rate_limit_exceeded", ((name, value),))


STATUSES = {
    **{
        str(status): Status(status)
        for status in (400, 401, 402, 403, 404, 408, 409, 413, 418, 422, 500, 502, 503, 504, 529)
    },
    "307": Status(307, None, (("Location", "http://127.0.0.1:9/v1/chat/completions"),)),
    "400-filtered": Status(400, "content_filter"),
    "429": Status(429, "rate_limit_exceeded"),
    "429-seconds": _after("1"),
    "429-ms": _after("200", "Retry-After-Ms"),
    "429-date": _after("date"),
    "429-long": _after("86400"),
    "429-negative": _after("-5"),
    "429-nan": _after("NaN"),
    "429-nonsense": _after("soon"),
    "429-quota": Status(429, "insufficient_quota"),
    "503-seconds": Status(503, None, (("Retry-After", "1"),)),
}


def status_response(fault: Status, key: str) -> web.Response:
    """The message repeats the key, as careless endpoints do."""
    headers = {
        name: email.utils.formatdate(time.time() + 2, usegmt=True) if text == "date" else text
        for name, text in fault.headers
    }
    error = {
        "message": f"fault {fault.status} on demand; the key was {key}",
        "type": "demo",
        "param": None,
        "code": fault.code,
    }
    return web.json_response({"error": error}, status=fault.status, headers=headers)


# --- bodies: from the completion that would have been sent ---------------------------------------------------------


def _message(**changed: Any) -> Callable[[dict[str, Any]], bytes]:
    def change(completion: dict[str, Any]) -> bytes:
        values = copy.deepcopy(completion)
        values["choices"][0]["message"] |= changed
        return json.dumps(values).encode()

    return change


def _finish(reason: str, keep: float = 1.0) -> Callable[[dict[str, Any]], bytes]:
    def change(completion: dict[str, Any]) -> bytes:
        values = copy.deepcopy(completion)
        choice = values["choices"][0]
        choice["finish_reason"] = reason
        choice["message"]["content"] = choice["message"]["content"][
            : int(keep * len(choice["message"]["content"]))
        ]
        return json.dumps(values).encode()

    return change


def _raw(make: Callable[[bytes], bytes]) -> Callable[[dict[str, Any]], bytes]:
    return lambda completion: make(json.dumps(completion).encode())


_CALL = {"id": "call_0", "type": "function", "function": {"name": "f", "arguments": "{}"}}
BODIES: dict[str, Callable[[dict[str, Any]], bytes]] = {
    "html": _raw(lambda _: b"<!doctype html><title>Welcome</title>"),
    "empty-body": _raw(lambda _: b""),
    "cut-json": _raw(lambda body: body[:-20]),
    "json-list": _raw(lambda body: b"[" + body + b"]"),
    "error-in-200": _raw(lambda _: b'{"error": {"message": "overloaded", "code": 500}}'),
    "no-choices-field": _raw(lambda _: b'{"id": "x", "object": "chat.completion"}'),
    "duplicate-keys": _raw(lambda body: b'{"choices": [], ' + body[1:]),
    "nan": _raw(lambda body: b'{"score": NaN, ' + body[1:]),
    "infinity": _raw(lambda body: b'{"score": -Infinity, ' + body[1:]),
    "big-integer": _raw(lambda body: b'{"n": ' + b"9" * 5_000 + b", " + body[1:]),
    "deep": _raw(lambda body: b'{"d": ' + b"[" * 100_000 + b"]" * 100_000 + b", " + body[1:]),
    "not-utf-8": _raw(lambda body: b'{"x": "\xff\xfe", ' + body[1:]),
    "bom": _raw(lambda body: b"\xef\xbb\xbf" + body),
    "long-string": _message(content="x" * LONG),
    "empty-choices": _raw(
        lambda _: b'{"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 0}}'
    ),
    "null-content": _message(content=None),
    "reasoning-only": _message(content=None, reasoning_content="Let me think about this."),
    "refusal": _message(content=None, refusal="I cannot help with that."),
    "tool-call": _message(content=None, tool_calls=[_CALL]),
    "length": _finish("length", 0.5),
    "content-filter": _finish("content_filter", 0.0),
    "no-usage": _raw(lambda body: json.dumps({**json.loads(body), "usage": None}).encode()),
}

# --- contents: of a completion that is as it should be --------------------------------------------------------------


def _fields(change: Callable[[dict[str, Any]], dict[str, Any]]) -> Callable[[str, str], str]:
    return lambda content, _: json.dumps(change(json.loads(content)))


def _first(values: dict[str, Any], text: Callable[[str], Any]) -> dict[str, Any]:
    return {**values, **{name: text(str(value)) for name, value in list(values.items())[:1]}}


CONTENTS: dict[str, Callable[[str, str], str]] = {
    "fences": lambda content, _: f"```json\n{content}\n```",
    "content-bom": lambda content, _: "\ufeff" + content,
    "chatter": lambda content, _: f"Sure! Here it is: {content}",
    "lone-surrogate": _fields(lambda values: _first(values, lambda text: text + "\ud800")),
    "nul": _fields(lambda values: _first(values, lambda text: text + "\0")),
    "line-separator": lambda content, _: json.dumps(
        _first(json.loads(content), lambda text: f"{text}\u2028"), ensure_ascii=False
    ),
    "special-token": _fields(lambda values: _first(values, lambda text: f"{text}</s><s>[INST]")),
    "wrong-type": _fields(lambda values: _first(values, lambda text: [text])),
    "missing-field": _fields(lambda values: dict(list(values.items())[1:])),
    "extra-field": _fields(lambda values: {**values, "note": "here you are"}),
    "same-texts": _fields(lambda values: dict.fromkeys(values, next(iter(values.values())))),
    "echo": lambda content, prompt: json.dumps(dict.fromkeys(json.loads(content), prompt)),
}

# --- the wire -------------------------------------------------------------------------------------------------------

Wire = Callable[[web.Request, bytes, float], Awaitable[web.StreamResponse]]


async def _reset(request: web.Request, _: bytes, __: float) -> web.StreamResponse:
    assert request.transport is not None  # there is a client
    request.transport.abort()
    return web.Response()


def _bytes(head: Callable[[int], str], most: float = 1.0) -> Wire:
    async def send(request: web.Request, body: bytes, _: float) -> web.StreamResponse:
        assert request.transport is not None  # there is a client
        request.transport.write(
            f"HTTP/1.1 200 OK\r\nContent-Type: {JSON}\r\n{head(len(body))}\r\n\r\n".encode()
        )
        request.transport.write(body[: int(most * len(body))])
        request.transport.close()
        return web.Response()

    return send


async def _slow_headers(_: web.Request, body: bytes, delay: float) -> web.StreamResponse:
    await asyncio.sleep(delay)
    return web.Response(body=body, content_type=JSON)


async def _drip(request: web.Request, body: bytes, delay: float) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": JSON})
    await response.prepare(request)
    with contextlib.suppress(ConnectionResetError):  # nobody waits that long
        for i in range(len(body)):
            await response.write(body[i : i + 1])
            await asyncio.sleep(delay / 10)
    return response


async def _bomb(_: web.Request, __: bytes, ___: float) -> web.StreamResponse:
    body = gzip.compress(bytes(MEMBER)) * (BOMB // MEMBER)  # members of one file follow each other
    return web.Response(body=body, content_type=JSON, headers={"Content-Encoding": "gzip"})


WIRES: dict[str, Wire] = {
    "reset": _reset,
    "no-http": _bytes(lambda _: "\r\n\r\nnonsense", 0.0),
    "short-body": _bytes(lambda length: f"Content-Length: {length + 100}"),
    "wrong-length": _bytes(lambda length: f"Content-Length: {length // 2}"),
    "cut-chunk": _bytes(lambda length: f"Transfer-Encoding: chunked\r\n\r\n{length + 9:x}"),
    "slow-headers": _slow_headers,
    "drip": _drip,
    "gzip-bomb": _bomb,
}
NAMES = (*STATUSES, *BODIES, *CONTENTS, *WIRES)
