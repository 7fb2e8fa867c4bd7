"""Sessions: resumed, cancelled, killed, out of budget, and what they choose."""

import asyncio
import json
import os
import random
from collections import Counter
from pathlib import Path

import pytest

from e5jax.errors import ConfigError
from e5jax.llm_client.config import Budget, LanguageModel
from e5jax.llm_client.request import Failure, Reply, Stop
from e5jax.llm_client.session import choose, open_session
from examples.demo_endpoint.server import Demo, serve
from tests.llm_client.asking import MODELS, endpoint, request
from tests.llm_client.killing import parent

KILLS = int(os.environ.get("E5JAX_SYNTH_KILLS", "2"))
COUNT = int(os.environ.get("E5JAX_SYNTH_COUNT", "400"))
SEED = int(os.environ.get("E5JAX_FAULT_SEED", "0"))


async def ask(path: Path, url: str, names, budget: Budget | None = None, **changed):
    async with open_session(endpoint(url, **changed), budget or Budget(), path, 0) as session:
        return await asyncio.gather(
            *(session.complete(request(name)) for name in names), return_exceptions=True
        ), session.totals()


def child(path: str, url: str) -> None:
    """A process to be killed."""
    asyncio.run(ask(Path(path), url, range(COUNT)))


def test_a_journalled_reply_is_not_asked_for_again(tmp_path):
    async def run():
        async with serve(Demo()) as (url, server):
            first, _ = await ask(tmp_path / "journal.jsonl", url, range(20))
            again, totals = await ask(tmp_path / "journal.jsonl", url, range(30))
            return first, again, totals, server

    first, again, totals, server = asyncio.run(run())
    assert again[:20] == first
    assert (totals["requests"], totals["replies"], totals["sessions"]) == (30, 30, 2)
    assert set(server.billed.values()) == {1}


def test_another_attempt_is_another_request(tmp_path):
    async def run():
        async with (
            serve(Demo()) as (url, server),
            open_session(endpoint(url), Budget(), tmp_path / "journal.jsonl", 0) as session,
        ):
            tries = [request(0), request(0, "other words", attempt=1), request(0)]
            return [await session.complete(one) for one in tries], server.counts()

    (first, other, again), counts = asyncio.run(run())
    assert first == again != other
    assert counts["billed"] == 2


def test_who_asks_may_be_cancelled_and_the_reply_is_kept(tmp_path):
    async def run():
        async with serve(Demo(latency=0.05)) as (url, server):
            async with open_session(
                endpoint(url), Budget(), tmp_path / "journal.jsonl", 0
            ) as session:
                await session.complete(request("first"))
                asking = [asyncio.create_task(session.complete(request(i))) for i in range(30)]
                while len(server.times) < 20:
                    await asyncio.sleep(0.005)
                for task in asking:
                    task.cancel()
            return await ask(tmp_path / "journal.jsonl", url, range(30)), server

    (outcomes, totals), server = asyncio.run(run())
    assert all(isinstance(outcome, Reply) for outcome in outcomes)
    assert totals["possibly_billed"]["in_flight_at_crash"] == 0
    assert set(server.billed.values()) == {1}


def test_no_request_leaves_unmarked(tmp_path, monkeypatch):
    """A mark that cannot be written, as on a full disk, keeps its request here."""
    path = tmp_path / "journal.jsonl"

    async def run():
        async with (
            serve(Demo()) as (url, server),
            open_session(endpoint(url, tries=1), Budget(), path, 0) as session,
        ):
            first = await session.complete(request("first"))
            with open("/dev/full", "wb", buffering=0) as full, monkeypatch.context() as patch:
                patch.setattr(session._journal.mark, "_file", full)
                second = await session.complete(request("second"))
            return first, second, server

    first, second, server = asyncio.run(run())
    assert isinstance(first, Reply)
    assert isinstance(second, Failure)
    assert server.counts()["billed"] == sum(server.asked.values()) == 1
    assert [int(number) for number in path.with_suffix(".sent").read_text().splitlines()[1:]] == [0]


@pytest.mark.parametrize(("latency", "drain"), [(0.2, 10.0), (30.0, 0.2)])
def test_a_stop_lets_arrive_what_arrives_soon_and_counts_the_rest(
    latency, drain, tmp_path, monkeypatch
):
    monkeypatch.setattr("e5jax.llm_client.session.DRAIN", drain)
    monkeypatch.setattr("e5jax.llm_client.session.FIRST_SLOTS", 8)
    monkeypatch.setattr("random.Random.expovariate", lambda *_: latency)
    path, workers = tmp_path / "journal.jsonl", 8

    async def run():
        async with serve(Demo(latency=latency)) as (url, server):
            models = (LanguageModel("one"),)
            async with open_session(
                endpoint(url, models=models, format="text", concurrency=workers), Budget(), path, 0
            ) as session:
                monkeypatch.setattr(
                    session._client, "_settled", {("one", True): session._client.dialect}
                )  # all at once
                asking = [asyncio.create_task(session.complete(request(i))) for i in range(50)]
                while len(server.times) < workers:
                    await asyncio.sleep(0.005)
                session.stop("enough")
                outcomes = await asyncio.gather(*asking, return_exceptions=True)
        async with serve(Demo()) as (url, _):
            return outcomes, (await ask(path, url, []))[1]

    outcomes, totals = asyncio.run(run())
    arrived = workers if latency < drain else 0
    assert [type(outcome) for outcome in outcomes] == [Reply] * arrived + [Stop] * (50 - arrived)
    assert totals["requests"] == workers
    assert totals["possibly_billed"]["in_flight_at_crash"] == workers - arrived


def test_a_run_starts_with_four_requests_at_once_and_each_answer_makes_room_for_one_more(
    tmp_path, monkeypatch
):
    monkeypatch.setattr("e5jax.llm_client.session.DRAIN", 0.1)
    answered, room = 10, 14

    async def run():
        async with serve(Demo(latency=0.001)) as (url, server), asyncio.timeout(30):
            async with open_session(
                endpoint(url), Budget(), tmp_path / "journal.jsonl", 0
            ) as session:
                for i in range(answered):
                    await session.complete(request(i))
                monkeypatch.setattr("random.Random.expovariate", lambda *_: 30.0)
                asking = [
                    asyncio.create_task(session.complete(request(f"later-{i}"))) for i in range(60)
                ]
                while len(server.times) < answered + room:
                    await asyncio.sleep(0.01)
                await asyncio.sleep(0.2)
                session.stop("seen")
                await asyncio.gather(*asking, return_exceptions=True)
            return len(server.times)

    assert asyncio.run(run()) == answered + room


@pytest.mark.parametrize(
    ("budget", "used"),
    [
        (Budget(requests=40), "requests"),
        (Budget(tokens=2_000), "tokens"),
        (Budget(money=0.003), "money"),
    ],
)
def test_a_budget_is_overrun_by_no_more_than_what_is_on_its_way(budget, used, tmp_path):
    workers = 8

    async def run():
        async with serve(Demo()) as (url, server):
            outcomes, totals = await ask(
                tmp_path / "journal.jsonl", url, range(300), budget, concurrency=workers
            )
            more, later = await ask(tmp_path / "journal.jsonl", url, range(300), budget)
            return outcomes, totals, more, later, server

    outcomes, totals, more, later, server = asyncio.run(run())
    replies = [outcome for outcome in outcomes if isinstance(outcome, Reply)]
    stops = [outcome for outcome in outcomes if isinstance(outcome, Stop)]
    assert len(replies) + len(stops) == 300
    assert f"budget.{used}" in str(stops[0])
    spent = {
        "requests": totals["requests"],
        "tokens": totals["prompt_tokens"] + totals["completion_tokens"],
        "money": totals["money"],
    }
    limit, most = (
        getattr(budget, used),
        {"requests": 0, "tokens": workers * 150, "money": workers * 300e-6},
    )
    assert limit <= spent[used] <= limit + most[used]
    assert [isinstance(outcome, Reply) for outcome in more] == [
        isinstance(outcome, Reply) for outcome in outcomes
    ]
    assert later["requests"] == totals["requests"]  # the budget is that of all runs together
    assert sum(server.billed.values()) == len(replies)


def test_a_budget_in_money_wants_prices(tmp_path):
    async def run():
        models = (LanguageModel("one"),)
        async with open_session(
            endpoint("http://127.0.0.1:9/v1", models=models), Budget(money=1.0), tmp_path / "j", 0
        ):
            pass

    with pytest.raises(ConfigError, match="set prompt_price and completion_price of one"):
        asyncio.run(run())


def test_the_model_is_chosen_by_share_seed_and_id_alone():
    names = [f"short-long/{i:06d}/generate" for i in range(10_000)]
    chosen = [choose(MODELS, 0, name) for name in names]
    counted = Counter(chosen)
    assert abs(counted["one"] - 2_500) < 3 * (10_000 * 0.25 * 0.75) ** 0.5
    assert [choose(MODELS, 0, name) for name in reversed(names)] == chosen[::-1]
    assert [choose(MODELS, 1, name) for name in names] != chosen


@pytest.mark.parametrize("best", ["schema", "json", "text"])
def test_what_an_endpoint_takes_is_found_out_once(best, tmp_path, capsys):
    def choose_fault(body: dict, _: int) -> str | None:
        refused = {"schema": (), "json": ("json_schema",), "text": ("json_schema", "json_object")}[
            best
        ]
        return "400" if body.get("response_format", {}).get("type") in refused else None

    async def run():
        async with serve(Demo(choose=choose_fault)) as (url, server):
            return await ask(
                tmp_path / "journal.jsonl", url, range(40), models=(LanguageModel("one"),)
            ), server

    (outcomes, _), server = asyncio.run(run())
    assert all(isinstance(outcome, Reply) for outcome in outcomes)
    lowered = ["schema", "json", "text"].index(best)
    assert server.received == Counter({"400": lowered, "answered": 40}) - Counter()
    assert capsys.readouterr().err.count("does not take") == lowered


def test_azure_is_asked_at_its_own_address_with_its_own_header(tmp_path, monkeypatch):
    monkeypatch.setenv("E5JAX_TEST_KEY", "azure-key-0123456789")

    async def run():
        async with serve(Demo(key="azure-key-0123456789")) as (url, server):
            resource = url.removesuffix("/v1")
            return await ask(
                tmp_path / "journal.jsonl", resource, range(3), azure_version="2024-10-21"
            ), server

    (outcomes, _), server = asyncio.run(run())
    assert all(isinstance(outcome, Reply) for outcome in outcomes)
    assert server.received == Counter({"answered": 3})


def test_killed_at_random_every_id_is_there_once_and_what_was_paid_twice_is_counted(tmp_path):
    chance, path = random.Random(SEED), tmp_path / "journal.jsonl"

    async def run():
        with parent("test_session") as kill:
            async with serve(Demo(latency=0.3)) as (url, server):
                for _ in range(KILLS):
                    await asyncio.to_thread(kill, path, url, chance.uniform(0.05, 1.0))
                return *(await ask(path, url, range(COUNT))), server

    outcomes, totals, server = asyncio.run(run())
    reported, twice = (
        totals["possibly_billed"]["in_flight_at_crash"],
        server.counts()["billed_twice"],
    )
    received = sum(server.asked.values()) - COUNT  # without an outcome in the journal
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    announced = sum(line["kind"] == "try" for line in lines) - COUNT
    print(
        f"seed {SEED}: {KILLS} kills, {len(outcomes)} replies; under way at a kill: {announced} announced, of which {reported} "
        f"reported as sent, {received} received by the endpoint, and {twice} billed once more"
    )
    assert [outcome.id for outcome in outcomes if isinstance(outcome, Reply)] == [
        request(i).id for i in range(COUNT)
    ]
    assert totals["requests"] == totals["replies"] + reported == COUNT + reported
    # A mark is made in the step that sends: a kill can come between the two for one request, and no more.
    assert twice <= received <= reported <= received + KILLS
    assert reported <= 64 * KILLS
    assert sum(server.billed.values()) == COUNT + twice
    journalled = set()
    for line in lines:
        assert line["kind"] not in ("try", "reply") or line["id"] not in journalled
        journalled |= {line["id"]} if line["kind"] == "reply" else set()
    assert len(journalled) == COUNT
