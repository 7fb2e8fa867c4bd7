"""A whole run without a network: what is kept depends on the replies alone, and everything asked for is accounted for."""

import asyncio
import json
from pathlib import Path
from random import Random

import pytest

from e5jax.data.records import Example, parse_example
from e5jax.llm_client.config import Endpoint, LanguageModel
from e5jax.llm_client.faults import FAULTS
from e5jax.llm_client.request import Failure, Reply, Request, Stop
from e5jax.synth.answer import Halt
from e5jax.synth.commands import generate
from e5jax.synth.config import Checks, Families, Grounded, Judge, Synth, Tasks
from e5jax.synth.families import BY_NAME
from e5jax.synth.output import Output
from e5jax.synth.plan import Document, Plan
from e5jax.synth.reasons import REASONS
from tests.synth.injections import INJECTIONS
from tests.synth.scripted import Scripted, good, words
from tests.synth.test_plan import only

FILES = ("details.jsonl", "rejects.jsonl", "report.html", "stats.json", "tasks.jsonl")


def configuration(examples: int = 60, **changes) -> Synth:
    """English only: words at random are no other language."""
    families = Families()
    families.bitext.share = 0.0
    values = {"families": families, "languages": ("en",), **changes}
    return Synth(
        examples=examples,
        endpoint=Endpoint(models=(LanguageModel("scripted"),), concurrency=8),
        **values,
    )


def run(
    folder: Path,
    config: Synth,
    session: Scripted,
    documents: tuple[Document, ...] = (),
    halt: Halt | None = None,
) -> dict:
    return asyncio.run(generate(Plan(config, documents), session, Output(folder), halt or Halt()))


def contents(folder: Path) -> dict[str, bytes]:
    paths = [folder / name for name in FILES] + sorted((folder / "examples").iterdir())
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def examples_of(folder: Path) -> list[Example]:
    return [
        parse_example(line, path.name)
        for path in (folder / "examples").iterdir()
        for line in path.read_text("utf-8").splitlines()
    ]


def rejects_of(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "rejects.jsonl").read_text("utf-8").splitlines()]


def faulty(request: Request) -> tuple[str, str] | str | None:
    """Good and bad replies, by the request's key."""
    kind = Random(f"{request.key}").randrange(12)
    bad = {
        0: None,
        1: ("{", "length"),
        2: ("", "content_filter"),
        3: "Sorry, I cannot.",
        4: "{}",
        5: ("", "tool_calls"),
        6: json.dumps(
            {
                "user_query": "the same",
                "positive_document": "the same",
                "hard_negative_document": "x",
            }
        ),
    }
    return bad[kind] if kind in bad else good(request)


def test_every_good_reply_becomes_an_example_ready_for_training(tmp_path):
    session = Scripted()
    found = run(tmp_path, configuration(), session)
    assert found["examples"] == {"asked": 60, "kept": 60, "dropped": 0, "open": 0}
    made = examples_of(tmp_path)
    assert len({example.id for example in made}) == 60
    tasks = {
        json.loads(line)["task"]
        for line in (tmp_path / "tasks.jsonl").read_text("utf-8").splitlines()
    }
    for example in made:
        family = BY_NAME[example.source.removeprefix("synth/")]
        assert example.id.startswith(f"{family.name}/")
        assert example.language == "en"
        assert bool(example.negatives) == (family.negative is not None)
        assert (
            example.instruction in tasks
            if family.brainstorms
            else example.instruction == family.instruction
        )
    assert max(session.asked.values()) == 1


@pytest.mark.parametrize("say", [good, faulty])
def test_replies_in_any_order_give_the_same_bytes(say, tmp_path):
    config = configuration(80)
    for i, shuffle in enumerate((None, Random(1), Random(2))):
        run(tmp_path / str(i), config, Scripted(say, shuffle))
    first, *others = (contents(tmp_path / str(i)) for i in range(3))
    assert others == [first, first]


def test_asked_is_kept_and_dropped_and_every_rejection_has_a_documented_reason(tmp_path):
    session = Scripted(faulty)
    found = run(tmp_path, configuration(150), session)
    counted = found["examples"]
    assert counted["asked"] == counted["kept"] + counted["dropped"]
    assert 0 < counted["kept"] < counted["asked"]
    assert sum(found["dropped_for"].values()) == counted["dropped"]
    assert found["dropped_for"]["bad-request"] > 0
    reasons = {row["reason"] for row in rejects_of(tmp_path)}
    assert (
        {"bad-request", "truncated", "filtered", "refused", "schema", "unfinished"}
        <= reasons
        <= set(REASONS) | set(FAULTS)
    )
    assert len(examples_of(tmp_path)) == counted["kept"]
    assert max(session.asked.values()) == 1


ANY_LENGTH = Checks(length_slack=100)
SAME = {
    "S1": "the house near the sea",
    "S2": "a home beside the ocean",
    "S3": "the house behind the hill",
}


def test_duplicates_are_asked_for_again_and_the_first_stays(tmp_path):
    session = Scripted(lambda request: good(request) if request.attempt else json.dumps(SAME))
    found = run(tmp_path, configuration(12, families=only("sts"), checks=ANY_LENGTH), session)
    assert found["examples"]["kept"] == 12
    assert [row["reason"] for row in rejects_of(tmp_path)] == ["duplicate"] * 11
    assert found["attempts"] == {"1": 1, "2": 11}
    assert examples_of(tmp_path)[0].query == SAME["S1"]
    assert len({example.query for example in examples_of(tmp_path)}) == 12


def test_what_stays_a_duplicate_is_dropped_after_the_last_attempt(tmp_path):
    found = run(
        tmp_path,
        configuration(5, families=only("sts"), checks=ANY_LENGTH),
        Scripted(lambda _: json.dumps(SAME)),
    )
    assert found["examples"] == {"asked": 5, "kept": 1, "dropped": 4, "open": 0}
    assert found["dropped_for"] == {"duplicate": 4}


def test_a_truncated_reply_is_asked_for_once_more_with_twice_the_tokens(tmp_path):
    session = Scripted(
        lambda request: ("{", "length") if "generate" in request.id else good(request)
    )
    found = run(tmp_path, configuration(3, families=only("sts")), session)
    limits = [
        request.max_tokens for request in session.requests if request.id == "sts/000000/generate"
    ]
    assert limits == [4_096, 8_192]
    assert found["dropped_for"] == {"truncated-twice": 3}


@pytest.mark.parametrize("after", [0, 3, 40])
def test_a_halted_run_writes_what_it_has_and_the_next_one_ends_as_if_nothing_had_happened(
    after, tmp_path
):
    journal: dict[tuple[str, int], Reply | Failure] = {}

    class Stopping(Scripted):
        async def complete(self, request: Request) -> Reply | Failure:
            if request.key in journal:
                return journal[request.key]
            if self.asked.total() >= after:
                raise Stop("the budget is spent")
            journal[request.key] = await super().complete(request)
            return journal[request.key]

    config = configuration(50)
    halt = Halt()
    found = run(tmp_path / "a", config, Stopping(faulty), halt=halt)
    assert not found["complete"]
    assert found["halted"] == "the budget is spent"
    counted = found["examples"]
    assert counted["asked"] == counted["kept"] + counted["dropped"] + counted["open"]
    assert len(examples_of(tmp_path / "a")) == counted["kept"]

    class Resumed(Scripted):
        async def complete(self, request: Request) -> Reply | Failure:
            return (
                journal[request.key] if request.key in journal else await super().complete(request)
            )

        def totals(self) -> dict:
            return {}

    resumed, straight = Resumed(faulty), Resumed(faulty)
    run(tmp_path / "a", config, resumed)
    assert not set(resumed.asked) & set(journal)
    journal.clear()
    run(tmp_path / "b", config, straight)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_the_judge_decides_at_its_threshold(tmp_path):
    def say(request: Request) -> str:
        return (
            json.dumps({"grade": 2 + (request.attempt > 0)})
            if request.id.endswith("judge")
            else good(request)
        )

    found = run(
        tmp_path, configuration(6, families=only("sts"), judge=Judge(least=3)), Scripted(say)
    )
    assert found["attempts"] == {"2": 6}
    assert [row["reason"] for row in rejects_of(tmp_path)] == ["grade"] * 6
    grades = [
        json.loads(line)["grade"]
        for line in (tmp_path / "details.jsonl").read_text("utf-8").splitlines()
    ]
    assert grades == [3] * 6


@pytest.mark.parametrize("said", ['{"grade": 9}', '{"grade": true}', '{"grade": "5"}', "5", "{}"])
def test_a_judge_that_gives_no_grade_passes_nothing(said, tmp_path):
    session = Scripted(lambda request: said if request.id.endswith("judge") else good(request))
    found = run(tmp_path, configuration(2, families=only("sts"), judge=Judge()), session)
    assert found["examples"]["kept"] == 0


def test_queries_for_documents_have_them_as_positives(tmp_path):
    documents = tuple(Document(words(Random(i), 60), "en") for i in range(5))
    families = only("grounded")
    families.grounded = Grounded(share=1, documents="mine.jsonl")
    run(tmp_path, configuration(10, families=families), Scripted(), documents)
    made = examples_of(tmp_path)
    assert len(made) == 10
    assert {example.positives[0] for example in made} == {document.text for document in documents}
    assert all(
        example.instruction == families.grounded.instruction and example.negatives
        for example in made
    )


def test_hostile_tasks_and_documents_change_no_file_schema_or_setting(tmp_path):
    """A model that answers every brainstorming request with injections, and documents that are injections."""
    hostile = iter(INJECTIONS)

    def say(request: Request) -> str:
        return (
            json.dumps({"tasks": [next(hostile) for _ in range(50)]})
            if "brainstorm" in request.id
            else good(request)
        )

    session = Scripted(say)
    families = only("short_long")
    families.grounded = Grounded(share=5 * families.short_long.share, documents="mine.jsonl")
    documents = tuple(Document(text, "en") for text in INJECTIONS)
    found = run(
        tmp_path / "run",
        configuration(240, families=families, tasks=Tasks(per_call=50)),
        session,
        documents,
    )
    assert found["families"]["grounded"]["asked"] == len(INJECTIONS)
    assert min(found["families"][name]["kept"] for name in ("short-long", "grounded")) > 0
    assert {path.name for path in (tmp_path / "run").iterdir()} == {*FILES, "examples"}
    assert {path.name for path in (tmp_path / "run" / "examples").iterdir()} == {
        "short-long.jsonl",
        "grounded.jsonl",
    }
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    for request in session.requests:
        if "generate" in request.id:
            assert request.schema is not None
            family = BY_NAME[request.id.partition("/")[0]]
            assert set(request.schema["properties"]) == {part.name for part in family.parts}
            assert (request.temperature, request.top_p, request.max_tokens) == (1.0, 1.0, 4_096)
    page = (tmp_path / "run" / "report.html").read_text("utf-8")
    assert "<script" not in page
    assert "<img" not in page


def test_too_few_tasks_leave_examples_open_and_the_run_says_so(tmp_path):
    session = Scripted(
        lambda request: (
            json.dumps({"tasks": ["Find the one task"]})
            if "brainstorm" in request.id
            else good(request)
        )
    )
    found = run(
        tmp_path,
        configuration(30, families=only("short_long"), tasks=Tasks(most_a_task=4)),
        session,
    )
    assert found["complete"]
    assert found["examples"] == {"asked": 30, "kept": 4, "dropped": 0, "open": 26}
    assert "too few tasks" in (tmp_path / "report.html").read_text("utf-8")
