"""Every fault that the demo endpoint can do, from a real socket to what the session makes of it."""

import asyncio
import json
from pathlib import Path

import pytest

from e5jax.llm_client.config import Budget
from e5jax.llm_client.faults import FAULTS, of_status, table, wait_of
from e5jax.llm_client.request import Failure, Reply, Stop
from e5jax.llm_client.session import open_session
from examples.demo_endpoint import faults as demo
from examples.demo_endpoint.server import Demo, serve
from tests.config.test_load import ROOT
from tests.llm_client.asking import endpoint, request

# What the demo endpoint does -> the fault in the table; a reply is there once it stops doing so, if the table says retry.
TABLE = {
    "400": "bad-request",
    "400-filtered": "filtered-prompt",
    "401": "key-refused",
    "402": "quota",
    "403": "forbidden",
    "404": "not-found",
    "307": "redirect",
    "408": "request-timeout",
    "409": "conflict",
    "413": "request-too-large",
    "418": "other-status",
    "422": "unprocessable",
    "429-quota": "quota",
    "long-string": "too-long",
    **dict.fromkeys(("500", "502", "503", "504", "529", "503-seconds"), "server-error"),
    **dict.fromkeys(
        ("429", "429-seconds", "429-ms", "429-date", "429-negative", "429-nan", "429-nonsense"),
        "rate-limit",
    ),
    **dict.fromkeys(
        ("html", "empty-body", "cut-json", "json-list", "duplicate-keys", "nan", "infinity"),
        "not-json",
    ),
    **dict.fromkeys(("big-integer", "deep", "not-utf-8", "wrong-length"), "not-json"),
    **dict.fromkeys(("error-in-200", "no-choices-field"), "not-a-reply"),
    **dict.fromkeys(("reset", "no-http", "short-body", "cut-chunk"), "disconnected"),
    **dict.fromkeys(("slow-headers", "drip"), "timeout"),
    "gzip-bomb": "encoded",
}
# A reply arrives at once, and says how it ended.
FINISHES = {
    "bom": "stop",
    "no-usage": "stop",
    "empty-choices": "empty",
    "null-content": "empty",
    "reasoning-only": "empty",
    "refusal": "refusal",
    "tool-call": "tool_calls",
    "length": "length",
    "content-filter": "content_filter",
    **dict.fromkeys(demo.CONTENTS, "stop"),
}
ENDLESS = {"429-long"}  # asks for more patience than there is
STOPS = {name for name, fault in TABLE.items() if FAULTS[fault].action == "stop"} | ENDLESS


def told(body: dict, times: int) -> str | None:
    """Faults by the first word of the prompt, the first time that it is asked."""
    name, _, often = body["messages"][0]["content"].partition(":")
    return name if name in demo.NAMES and (times == 1 or "always" in often) else None


async def ask(path: Path, requests: list, choose=told, **changed):
    """Outcomes, totals, and the server."""
    async with serve(Demo(choose=choose, delay=8.0)) as (url, server):
        async with open_session(
            endpoint(url, timeout=4.0, **changed), Budget(), path, 0
        ) as session:
            settled = await session.complete(request("first"))  # finds out what the endpoint takes
            assert isinstance(settled, Reply)
            outcomes = await asyncio.gather(
                *map(session.complete, requests), return_exceptions=True
            )
        return outcomes, session.totals(), server


def test_every_fault_of_the_demo_endpoint_is_in_the_tables():
    assert set(TABLE) | set(FINISHES) | ENDLESS == set(demo.NAMES)
    assert len(demo.NAMES) >= 45
    assert set(TABLE.values()) | {"unreachable", "row-missing"} == set(FAULTS)


def test_the_documentation_has_the_same_table():
    assert table() in (ROOT / "docs/synth.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("refusals", [True, False])  # apart, as these slow everyone down
def test_each_fault_has_the_consequence_that_the_table_says(refusals, tmp_path):
    asked = [
        name
        for name in (*TABLE, *FINISHES)
        if name not in STOPS and (TABLE.get(name) == "rate-limit") == refusals
    ]
    outcomes, totals, server = asyncio.run(
        ask(tmp_path / "journal.jsonl", [request(name) for name in asked])
    )
    got = dict(zip(asked, outcomes, strict=True))
    for name, outcome in got.items():
        dropped = name in TABLE and FAULTS[TABLE[name]].action == "drop"
        assert isinstance(outcome, Failure if dropped else Reply), (name, outcome)
    assert {name: got[name].reason for name in got if isinstance(got[name], Failure)} == {
        name: fault
        for name, fault in TABLE.items()
        if name in got and FAULTS[fault].action == "drop"
    }
    assert {name: got[name].finish for name in asked if name in FINISHES} == (
        {} if refusals else FINISHES
    )
    counted = {fault: sum(TABLE.get(name) == fault for name in asked) for fault in FAULTS}
    assert totals["faults"] == {fault: n for fault, n in sorted(counted.items()) if n}
    assert totals["replies"] + sum(totals["failures"].values()) == len(asked) + 1
    assert totals["requests"] == totals["replies"] + sum(totals["faults"].values())
    billed = sum(server.billed.values())
    assert (
        billed == totals["replies"] + totals["possibly_billed"]["unanswered"]
    )  # exact, as all of these were


@pytest.mark.parametrize("name", sorted(STOPS))
def test_what_cannot_get_better_stops_the_run_at_once(name, tmp_path):
    first, later = (
        [request(f"{name}:{i} always") for i in range(8)],
        [request(i) for i in range(50)],
    )
    outcomes, totals, server = asyncio.run(
        ask(
            tmp_path / "journal.jsonl",
            [*first, *later],
            lambda body, _: name if "always" in str(body) else None,
            concurrency=8,
        )
    )
    assert all(isinstance(outcome, Stop) for outcome in outcomes[:8])
    assert 1 <= server.received[name] <= 8  # one further request of each worker
    assert totals["requests"] <= 1 + 8
    assert totals["in_flight"] == 0


def test_a_fault_that_stays_is_given_up_and_asked_again_by_the_next_run(tmp_path):
    path = tmp_path / "journal.jsonl"
    (outcome,), totals, _ = asyncio.run(ask(path, [request("500", "always")], tries=3))
    assert isinstance(outcome, Failure)
    assert outcome.reason == "server-error"
    assert (totals["given_up"], totals["faults"], totals["requests"]) == (1, {"server-error": 3}, 4)
    (outcome,), totals, _ = asyncio.run(ask(path, [request("500", "always")], lambda *_: None))
    assert isinstance(outcome, Reply)
    assert (totals["given_up"], totals["faults"], totals["requests"], totals["sessions"]) == (
        0,
        {"server-error": 3},
        5,
        2,
    )


def test_a_verdict_on_a_request_is_kept(tmp_path):
    path = tmp_path / "journal.jsonl"
    (outcome,), _, _ = asyncio.run(ask(path, [request("413")]))
    (again,), totals, server = asyncio.run(ask(path, [request("413")]))
    assert isinstance(outcome, Failure)
    assert again == outcome
    assert totals["failures"] == {"request-too-large": 1}
    assert not server.received


def test_nothing_answers_for_longer_than_patience_lasts(tmp_path):
    (outcome,), _, _ = asyncio.run(
        ask(tmp_path / "journal.jsonl", [request("500", "always")], tries=50, patience=0.5)
    )
    assert isinstance(outcome, Stop)
    assert "no answer for" in str(outcome)


def test_no_endpoint_at_all_is_unreachable(tmp_path):
    async def run():
        target = endpoint("http://127.0.0.1:9/v1", tries=2)
        async with open_session(target, Budget(), tmp_path / "journal.jsonl", 0) as session:
            return await session.complete(request(0)), session.totals()

    outcome, totals = asyncio.run(run())
    assert isinstance(outcome, Failure)
    assert outcome.reason == "unreachable"
    assert totals["possibly_billed"] == {
        "in_flight_at_crash": 0,
        "unanswered": 0,
        "tokens_at_most": 0,
    }


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "3"}, 3),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after-ms": "200", "retry-after": "1"}, 0.2),
        ({"retry-after": "Thu, 01 Jan 1970 00:02:00 GMT"}, 20),
        ({"retry-after": "Thu, 01 Jan 1970 00:00:01 GMT"}, 0),
        ({"retry-after": "-1"}, None),
        ({"retry-after": "NaN"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "Thu, 99 Foo 99999 00:00:01 GMT"}, None),
        ({}, None),
    ],
)
def test_retry_after_is_a_number_or_a_date_and_nonsense_is_nothing(headers, seconds):
    assert (
        wait_of(headers, now=100.0) == pytest.approx(seconds)
        if seconds is not None
        else wait_of(headers, 100.0) is None
    )


def test_every_status_has_a_fault():
    assert {of_status(status, None) for status in range(300, 600)} <= set(FAULTS)


def test_a_json_object_that_the_endpoint_gives_is_the_one_that_is_journalled(tmp_path):
    (outcome,), _, _ = asyncio.run(ask(tmp_path / "journal.jsonl", [request("plain")]))
    assert set(json.loads(outcome.text)) == {"query", "positive", "negative"}
    lines = [json.loads(line) for line in (tmp_path / "journal.jsonl").read_text().splitlines()]
    assert [line["text"] for line in lines if line["kind"] == "reply"][1] == outcome.text
