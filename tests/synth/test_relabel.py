"""Relabelling: the best grade becomes the positive, the first bad one the negative."""

import asyncio
import json
from pathlib import Path

import pytest

from e5jax.data.records import Example, parse_example
from e5jax.errors import ConfigError
from e5jax.synth.answer import Halt
from e5jax.synth.commands import generate
from e5jax.synth.config import Relabel
from e5jax.synth.output import Output
from e5jax.synth.plan import Plan
from e5jax.synth.reasons import UnfitError
from e5jax.synth.relabel import Record, ask, chosen, records
from tests.synth.injections import INJECTIONS
from tests.synth.scripted import Scripted
from tests.synth.test_collect import configuration

RULES = Relabel(least=4, most=2)
MINED = Example(
    "q1",
    "who built it",
    ("Ada did.",),
    ("Bo did not.", "It is tall.", "Ada, they say."),
    "Find the builder",
    "en",
    "set",
)


def record(example: Example = MINED) -> Record:
    return Record(0, example, (*example.positives, *example.negatives))


@pytest.mark.parametrize(
    ("grades", "positive", "negative"),
    [
        ([5, 1, 1, 3], "Ada did.", "Bo did not."),
        ([3, 3, 2, 4], "Ada, they say.", "It is tall."),
        ([5, 2, 1, 5], "Ada did.", "Bo did not."),
        ([1, 5, 1, 1], "Bo did not.", "Ada did."),
    ],
)
def test_best_and_hardest_are_chosen(grades, positive, negative):
    found = chosen(record(), {"grades": grades}, RULES)
    assert (found.positives, found.negatives) == ((positive,), (negative,))
    assert found.positive_scores == (float(max(grades)),)
    assert (found.id, found.query, found.instruction) == (MINED.id, MINED.query, MINED.instruction)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"grades": [3, 1, 1, 1]}, "no-positive"),
        ({"grades": [5, 3, 4, 5]}, "no-negative"),
        ({"grades": [5, 1, 1]}, "schema"),
        ({"grades": [5, 1, 1, 9]}, "schema"),
        ({"grades": [5, 1, 1, True]}, "schema"),
        ({"grades": [5, 1, 1, 1], "why": "x"}, "schema"),
        ({"grades": "5111"}, "schema"),
        ({}, "schema"),
    ],
)
def test_what_gives_no_pair_has_its_reason(values, reason):
    with pytest.raises(UnfitError) as caught:
        chosen(record(), values, RULES)
    assert caught.value.reason == reason


@pytest.mark.parametrize("text", INJECTIONS)
def test_a_hostile_candidate_changes_neither_schema_nor_sampling(text):
    plan = Plan(configuration())
    plain, hostile = (
        ask(plan, record(MINED._replace(query=words, negatives=(words, "b"))), RULES)
        for words in ("a", text)
    )
    assert hostile._replace(messages=()) == plain._replace(messages=())
    assert hostile.messages[0] == plain.messages[0]
    assert len(hostile.messages[1].content.splitlines()) == len(
        plain.messages[1].content.splitlines()
    )


def test_a_run_keeps_drops_and_counts(tmp_path: Path):
    path = tmp_path / "mined.jsonl"
    examples = [MINED._replace(id=f"q{i}", query=f"who built number {i}") for i in range(20)]
    path.write_text("".join(example.to_json() + "\n" for example in examples), encoding="utf-8")
    rules = Relabel(files=(str(path),))
    assert len(list(records(rules))) == 20

    def say(request) -> str:
        return json.dumps(
            {"grades": [5, 1, 1, 1] if int(request.id.split("/")[1]) % 4 else [3, 3, 3, 3]}
        )

    config = configuration(relabel=rules)
    found = asyncio.run(generate(Plan(config), Scripted(say), Output(tmp_path / "run"), Halt()))
    assert found["families"]["relabel"] | {"tasks": 0} == {
        "asked": 20,
        "kept": 15,
        "dropped": 5,
        "open": 0,
        "tasks": 0,
    }
    made = [
        parse_example(line, "x")
        for line in (tmp_path / "run/examples/relabel.jsonl").read_text("utf-8").splitlines()
    ]
    assert [example.id for example in made] == [f"q{i}" for i in range(20) if i % 4]
    assert "who built number" in (tmp_path / "run/report.html").read_text("utf-8")


def test_a_missing_file_is_named():
    with pytest.raises(ConfigError, match=r"config.relabel.files=nowhere: there is no such file"):
        list(records(Relabel(files=("nowhere",))))
