"""The Batch API against the demo endpoint: killed around submission, refused, shuffled, with rows that fail."""

import asyncio
import os
import random
from pathlib import Path

import pytest

from e5jax.llm_client.batch import Batch
from e5jax.llm_client.config import Budget
from e5jax.llm_client.request import Failure, Reply, Stop
from e5jax.llm_client.session import open_session
from examples.demo_endpoint.server import Demo, serve
from tests.llm_client.asking import endpoint, request
from tests.llm_client.killing import parent

KILLS = int(os.environ.get("E5JAX_SYNTH_KILLS", "1"))
SEED = int(os.environ.get("E5JAX_FAULT_SEED", "0"))
COUNT = 50


async def ask(path: Path, url: str, count: int, budget: Budget | None = None, **changed):
    target = endpoint(url, api="batch", **{"poll": 0.1, **changed})
    async with open_session(target, budget or Budget(), path, 0) as session:
        assert isinstance(session, Batch)
        outcomes = await asyncio.gather(
            *(session.complete(request(i)) for i in range(count)), return_exceptions=True
        )
        return outcomes, session.totals()


def child(path: str, url: str) -> None:
    """A process to be killed."""
    asyncio.run(
        ask(Path(path), url, COUNT, concurrency=20, poll=0.5)
    )  # longer than the endpoint needs to create one


def test_replies_of_batches_are_those_of_single_requests_at_half_the_price(tmp_path):
    async def run():
        async with serve(Demo(batch_seconds=0.1)) as (url, server):
            batched = await ask(tmp_path / "batch/journal.jsonl", url, 30, concurrency=20)
            async with open_session(
                endpoint(url), Budget(), tmp_path / "chat/journal.jsonl", 0
            ) as session:
                single = [await session.complete(request(i)) for i in range(30)]
                return batched, single, session.totals(), server

    (outcomes, totals), single, chat, server = asyncio.run(run())
    assert outcomes == single
    assert totals["money"] == pytest.approx(chat["money"] / 2)
    assert totals["replies_by_model"] == chat["replies_by_model"]
    assert (totals["requests"], totals["in_flight"]) == (30, 0)
    assert server.batches.counts()["batches"] == 2  # of 20 and 10


def test_rows_fail_one_by_one(tmp_path):
    def fault(body: dict) -> str | None:
        return {"3": "413", "4": "length", "5": "empty-choices"}.get(
            body["messages"][0]["content"].split(":")[0]
        )

    async def run():
        async with serve(Demo(batch_seconds=0.1, batch_fault=fault)) as (url, _):
            return await ask(tmp_path / "journal.jsonl", url, 8)

    outcomes, totals = asyncio.run(run())
    assert [type(outcome) for outcome in outcomes] == [
        Reply,
        Reply,
        Reply,
        Failure,
        Reply,
        Reply,
        Reply,
        Reply,
    ]
    assert [outcome.finish for outcome in outcomes if isinstance(outcome, Reply)][3:5] == [
        "length",
        "empty",
    ]
    assert totals["failures"] == {"request-too-large": 1}


def test_a_row_that_fails_now_and_then_is_in_the_next_batch(tmp_path):
    seen = set()

    def fault(body: dict) -> str | None:
        text = body["messages"][0]["content"]
        first = text not in seen
        seen.add(text)
        return "500" if first and text.startswith("2:") else None

    async def run():
        async with serve(Demo(batch_seconds=0.1, batch_fault=fault)) as (url, server):
            return await ask(tmp_path / "journal.jsonl", url, 5), server

    (outcomes, totals), server = asyncio.run(run())
    assert all(isinstance(outcome, Reply) for outcome in outcomes)
    assert totals["faults"] == {"server-error": 1}
    assert server.batches.counts() == {"batches": 2, "duplicate_batches": 0, "files": 5}


def test_a_budget_of_requests_is_not_overrun(tmp_path):
    async def run():
        async with serve(Demo(batch_seconds=0.1)) as (url, server):
            return await ask(
                tmp_path / "journal.jsonl", url, 50, Budget(requests=25), concurrency=20
            ), server

    (outcomes, totals), server = asyncio.run(run())
    assert totals["requests"] <= 25
    assert sum(isinstance(outcome, Stop) for outcome in outcomes) >= 25
    assert sum(server.billed.values()) <= 25


def test_a_batch_that_cannot_be_kept_is_not_submitted(tmp_path):
    (tmp_path / "batches").touch()  # where the folder would be

    async def run():
        async with serve(Demo()) as (url, server):
            return await ask(tmp_path / "journal.jsonl", url, 5), server

    (outcomes, totals), server = asyncio.run(run())
    assert all(isinstance(outcome, Stop) for outcome in outcomes)
    assert "make room" in str(outcomes[0])
    assert server.batches.counts()["files"] == totals["requests"] == 0


def test_killed_around_submission_no_batch_is_created_twice_and_no_row_is_lost(tmp_path):
    """Each round kills a fresh run twice at random, then lets it end."""
    chance = random.Random(SEED)

    async def rounds():
        hits = 0
        with parent("test_batch") as kill:
            async with serve(Demo(batch_seconds=0.3, batch_lag=0.15)) as (url, server):
                for i in range(KILLS):
                    path = tmp_path / f"{i}/journal.jsonl"
                    for _ in range(2):
                        hits += await asyncio.to_thread(kill, path, url, chance.uniform(0.0, 0.5))
                    outcomes, totals = await ask(path, url, COUNT, concurrency=20, poll=0.5)
                    assert all(isinstance(outcome, Reply) for outcome in outcomes)
                    assert totals["replies"] == totals["requests"] == COUNT
                    assert totals["possibly_billed"] == {
                        "in_flight_at_crash": 0,
                        "unanswered": 0,
                        "tokens_at_most": 0,
                    }
                return server, hits

    server, hits = asyncio.run(rounds())
    counts = server.batches.counts()
    print(f"seed {SEED}: {2 * KILLS} kills, {hits} of them of a run under way; {counts}")
    assert counts["duplicate_batches"] == 0
    assert sum(server.billed.values()) == COUNT * KILLS
    assert set(server.billed.values()) == {KILLS}
