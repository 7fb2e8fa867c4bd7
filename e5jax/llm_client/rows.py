"""The rows of batches: lines of the file that is submitted, and of the files that come back."""

import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from e5jax.errors import RecordError
from e5jax.jsonl import parse_object
from e5jax.llm_client import completion
from e5jax.llm_client.client import URL
from e5jax.llm_client.faults import FAULTS, Trouble, of_status
from e5jax.llm_client.request import Failure, Reply, Stop

Key = tuple[str, int]
Rows = dict[Key, dict[str, Any]]  # the body of each request


def line_of(key: Key, asked: dict[str, Any]) -> bytes:
    """One line of the file that is submitted."""
    return (
        json.dumps(
            {"custom_id": f"{key[1]}:{key[0]}", "method": "POST", "url": URL, "body": asked}
        ).encode()
        + b"\n"
    )


def _key(custom_id: str) -> Key:
    attempt, _, name = custom_id.partition(":")
    return name, int(attempt)


def read_rows(content: bytes) -> Rows:
    """Inverse of all its lines."""
    lines = [parse_object(line) for line in content.split(b"\n") if line]
    return {_key(line["custom_id"]): line["body"] for line in lines}


def keep(path: Path, content: bytes) -> None:
    """Writes a file whole and durably, or not at all. Raises Stop when it cannot be."""
    temporary = path.with_suffix(".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with os.fdopen(
            os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb"
        ) as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise Stop(f"{path}: {error.strerror}; make room, then the same command goes on") from error


def answers(lines: Iterable[bytes]) -> Iterator[tuple[Key, dict[str, Any]]]:
    """Rows that can be read; the others count as missing."""
    for line in lines:
        try:
            values = parse_object(line)
            yield _key(str(values.get("custom_id"))), values
        except (RecordError, ValueError):
            continue


def said(values: dict[str, Any], asked: dict[str, Any]) -> completion.Completion | Trouble:
    """What one row of the answer says about the request."""
    response = values.get("response")
    if not isinstance(response, dict) or not isinstance(response.get("body"), dict):
        return Trouble("row-missing", completion.error_of(values) or FAULTS["row-missing"].when)
    inner, status = response["body"], response.get("status_code")
    if status != 200:
        fault = of_status(status if isinstance(status, int) else 0, completion.code_in(inner))
        return Trouble(fault, f"HTTP {status}: {completion.error_of(inner)}")
    return completion.read(
        inner, sum(completion.tokens(message["content"]) for message in asked["messages"])
    )


def noted(key: Key, outcome: Reply | Trouble) -> Iterator[dict[str, Any]]:
    """Lines of the journal about one row."""
    if isinstance(outcome, Reply):
        yield {"kind": "reply", **outcome._asdict()}
        return
    yield {
        "kind": "fault",
        "id": key[0],
        "attempt": key[1],
        "fault": outcome.fault,
        "detail": outcome.detail,
    }
    if FAULTS[outcome.fault].action == "drop":
        yield {"kind": "failure", **Failure(*key, outcome.fault, outcome.detail)._asdict()}
