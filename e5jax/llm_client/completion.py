"""The body of a chat completion, read with distrust: bytes flow in, text and token counts flow out."""

import re
from typing import Any, NamedTuple

from e5jax.errors import RecordError
from e5jax.jsonl import parse_object
from e5jax.llm_client.faults import Trouble
from e5jax.llm_client.request import Request

BOM = b"\xef\xbb\xbf"
BYTES_A_TOKEN, TOKENS_A_MESSAGE = 4, 4  # to estimate by
_MOST = 10**9  # tokens that anyone would believe
_FINISH = re.compile(r"[a-z_]{1,40}")


class Completion(NamedTuple):
    """What a reply says, and what it says it cost."""

    text: str
    finish: str
    prompt_tokens: int
    completion_tokens: int


def prompt_tokens(request: Request) -> int:
    """About how many; the endpoint counts them afterwards."""
    return sum(TOKENS_A_MESSAGE + tokens(message.content) for message in request.messages)


def tokens(text: str) -> int:
    """About how many a text has."""
    return len(text.encode("utf-8", "surrogatepass")) // BYTES_A_TOKEN


def parse(body: bytes, prompt: int) -> Completion | Trouble:
    """Of the body of a success; `prompt` are its tokens, should the endpoint not say how many."""
    try:
        return read(parse_object(body.removeprefix(BOM)), prompt)
    except RecordError as error:
        return Trouble("not-json", str(error)[:200])


def read(values: dict[str, Any], prompt: int) -> Completion | Trouble:
    """Anything that has choices is a reply, and was paid for, be it useful or not."""
    choices = values.get("choices")
    if not isinstance(choices, list) or not all(isinstance(choice, dict) for choice in choices):
        return Trouble(
            "not-a-reply", error_of(values) or f"an object with {', '.join(values)}"[:200]
        )
    text, finish = _said(choices[0]) if choices else ("", "empty")
    usage = values.get("usage")
    counts = usage if isinstance(usage, dict) else {}
    return Completion(
        text,
        finish,
        _count(counts.get("prompt_tokens"), prompt),
        _count(counts.get("completion_tokens"), tokens(text)),
    )


def code_of(body: bytes) -> tuple[str | None, str]:
    """Code and message of an error's body, as far as it has them."""
    try:
        values = parse_object(body.removeprefix(BOM))
    except RecordError:
        return None, body[:300].decode("utf-8", "replace")
    return code_in(values), error_of(values) or body[:300].decode("utf-8", "replace")


def code_in(values: dict[str, Any]) -> str | None:
    """The code of an error."""
    error = values.get("error")
    code = error.get("code") if isinstance(error, dict) else None
    return code if isinstance(code, str) else None


def _said(choice: dict[str, Any]) -> tuple[str, str]:
    message = choice.get("message")
    message = message if isinstance(message, dict) else {}
    content, reason = message.get("content"), choice.get("finish_reason")
    text = content if isinstance(content, str) else ""
    finish = reason if isinstance(reason, str) and _FINISH.fullmatch(reason) else "none"
    if isinstance(message.get("refusal"), str):
        return text or message["refusal"], "refusal"
    if finish == "stop" and not text:
        return "", "tool_calls" if message.get("tool_calls") else "empty"
    return text, finish


def error_of(values: dict[str, Any]) -> str:
    """The message of an error, or nothing."""
    error = values.get("error")
    message = (
        error.get("message")
        if isinstance(error, dict)
        else error
        if isinstance(error, str)
        else values.get("message")
    )
    return message[:300] if isinstance(message, str) else ""


def _count(value: object, estimate: int) -> int:
    return (
        value
        if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MOST
        else estimate
    )
