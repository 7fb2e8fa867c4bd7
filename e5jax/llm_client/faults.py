"""What can go wrong between a request and its reply, and what follows: the one table, which docs/synth.md repeats.

What is wrong with a reply that did arrive is in `reasons`.
"""

import datetime
import email.utils
import math
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

Action = Literal["retry", "drop", "stop"]
Billed = Literal["no", "maybe"]


class Fault(NamedTuple):
    """One row."""

    action: Action
    billed: Billed
    when: str


class Trouble(NamedTuple):
    """A fault that happened."""

    fault: str
    detail: str  # for people; holds no key
    wait: float | None = None  # seconds that the endpoint asks everyone to wait


FAULTS = {
    "unreachable": Fault("retry", "no", "no connection: name, port, TLS handshake"),
    "disconnected": Fault(
        "retry",
        "maybe",
        "the connection broke once the request was sent, or the body ended too early",
    ),
    "timeout": Fault("retry", "maybe", "no whole reply within `endpoint.timeout` seconds"),
    "request-timeout": Fault("retry", "no", "HTTP 408"),
    "conflict": Fault("retry", "no", "HTTP 409"),
    "rate-limit": Fault("retry", "no", "HTTP 429"),
    "server-error": Fault("retry", "no", "HTTP 500 to 599"),
    "not-json": Fault(
        "retry",
        "maybe",
        "HTTP 200 whose body is no strict JSON: a page, NaN, a name twice, endless nesting",
    ),
    "not-a-reply": Fault("retry", "maybe", "HTTP 200 whose body is JSON but no chat completion"),
    "encoded": Fault("retry", "maybe", "a compressed body, which was not asked for"),
    "too-long": Fault("drop", "maybe", "a body of more than `endpoint.reply_bytes`"),
    "row-missing": Fault("retry", "maybe", "a batch ended without this row"),
    "bad-request": Fault("drop", "no", "HTTP 400"),
    "filtered-prompt": Fault(
        "drop", "no", "HTTP 400 whose code is `content_filter` or `content_policy_violation`"
    ),
    "request-too-large": Fault("drop", "no", "HTTP 413"),
    "unprocessable": Fault("drop", "no", "HTTP 422"),
    "other-status": Fault("drop", "no", "any other status"),
    "redirect": Fault("stop", "no", "HTTP 300 to 399: `endpoint.base_url` is not the right one"),
    "key-refused": Fault("stop", "no", "HTTP 401"),
    "quota": Fault(
        "stop",
        "no",
        "HTTP 402, or 429 whose code is `insufficient_quota` or `billing_hard_limit_reached`",
    ),
    "forbidden": Fault("stop", "no", "HTTP 403"),
    "not-found": Fault("stop", "no", "HTTP 404: no such model or address"),
}
_STATUS = {
    400: "bad-request",
    401: "key-refused",
    402: "quota",
    403: "forbidden",
    404: "not-found",
    408: "request-timeout",
    409: "conflict",
    413: "request-too-large",
    422: "unprocessable",
    429: "rate-limit",
}
_CODES = {
    (429, "insufficient_quota"): "quota",
    (429, "billing_hard_limit_reached"): "quota",
    (400, "content_filter"): "filtered-prompt",
    (400, "content_policy_violation"): "filtered-prompt",
}


def of_status(status: int, code: str | None) -> str:
    """The fault of an HTTP answer that is no success; `code` is that of the error in its body."""
    if found := _CODES.get((status, code or "")) or _STATUS.get(status):
        return found
    if 300 <= status < 400:
        return "redirect"
    return "server-error" if 500 <= status < 600 else "other-status"


def wait_of(headers: Mapping[str, str], now: float) -> float | None:
    """Seconds to wait by `Retry-After-Ms` or `Retry-After`, a number or a date; None for none and for nonsense."""
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        if (text := headers.get(name)) is None:
            continue
        seconds = _number(text, unit)
        if seconds is None:
            seconds = _until(text, now)
        if seconds is not None and math.isfinite(seconds) and seconds >= 0:
            return seconds
    return None


def _number(text: str, unit: float) -> float | None:
    try:
        return float(text) * unit
    except ValueError:
        return None


def _until(text: str, now: float) -> float | None:
    try:
        date = email.utils.parsedate_to_datetime(text)
    except (ValueError, TypeError, OverflowError):
        return None
    return max(0.0, (date if date.tzinfo else date.replace(tzinfo=datetime.UTC)).timestamp() - now)


def table() -> str:
    """The rows as the documentation shows them."""
    rows: list[Any] = [
        f"| `{name}` | {row.when} | {row.action} | {row.billed} |" for name, row in FAULTS.items()
    ]
    return "\n".join(["| fault | when | what follows | billed |", "|---|---|---|---|", *rows])
