"""The plan: a pure function of seed, configuration and tasks, in the proportions that are asked for."""

import json
from collections import Counter
from dataclasses import replace

import pytest

from e5jax.synth.config import Families, Grounded, Hints, Synth
from e5jax.synth.families import BY_NAME, FAMILIES, bounds
from e5jax.synth.languages import choices, table, taken_for
from e5jax.synth.plan import Document, Plan, counts, drawn
from e5jax.synth.text_spec import parse_description
from tests.synth.injections import INJECTIONS

TASKS = [f"Given clue number {i}, find the suspect" for i in range(40)]
PAPER = {
    "short-long": 167_000,
    "long-short": 122_000,
    "short-short": 13_000,
    "long-long": 17_000,
    "sts": 99_000,
    "bitext": 89_000,
}


def test_default_shares_are_the_papers():
    assert counts(Synth()) == {**PAPER, "grounded": 0}


def test_default_languages_are_the_93_of_the_paper_with_its_weights():
    shares = choices(()).shares()
    assert len(shares) == 93
    assert shares["en"] == pytest.approx(0.431, abs=1e-3)
    assert shares["pl"] == pytest.approx(0.030, abs=1e-3)
    assert sum(sorted(shares.values())[:-14]) == pytest.approx(0.198, abs=1e-3)
    assert all(language.code.isalpha() and language.name for language in table().values())


def test_most_languages_are_known_to_the_identifier():
    assert {code for code in table() if not taken_for(code)} == {"su", "sd", "yi"}


def test_low_scores_differ_between_similarity_and_bitext():
    low = {
        name: set(drawn(Synth(), BY_NAME[name])["low_score"].values) for name in ("sts", "bitext")
    }
    assert low == {"sts": {"2.5", "3", "3.5"}, "bitext": {"1.5", "2", "2.5"}}


@pytest.mark.parametrize("family", FAMILIES[:6], ids=lambda family: family.name)
def test_languages_of_slots_follow_their_weights(family):
    plan = Plan(Synth(examples=6_000, families=only(family.field)))
    slots = list(plan.slots(family, TASKS * 20))
    found, n = Counter(slot.language for slot in slots), len(slots)
    squares = [
        (found[code] - n * share) ** 2 / (n * share) for code, share in choices(()).shares().items()
    ]
    degrees = len(squares) - 1
    assert sum(squares) < degrees + 4 * (2 * degrees) ** 0.5  # mean and deviation of chi-squared
    assert all(slot.target != slot.language for slot in slots)
    assert all(bool(slot.target) == (family.name == "bitext") for slot in slots)


def test_a_slot_and_its_request_do_not_depend_on_what_was_asked_before():
    config = Synth(seed=7, examples=300)
    first, second = Plan(config), Plan(config)
    one = [first.ask(slot) for family in FAMILIES for slot in first.slots(family, TASKS)]
    other = [
        second.ask(slot)
        for family in reversed(FAMILIES)
        for slot in reversed(list(second.slots(family, TASKS)))
    ]
    assert {asked.slot.id: asked for asked in one} == {asked.slot.id: asked for asked in other}


def test_another_seed_or_attempt_words_the_request_anew_and_keeps_task_and_language():
    plan, other = Plan(Synth(examples=500)), Plan(Synth(seed=1, examples=500))
    slots = list(plan.slots(FAMILIES[0], TASKS))
    again = sum(
        plan.ask(slot).request.messages != plan.ask(slot, 1).request.messages for slot in slots
    )
    assert again > 0.9 * len(slots)
    assert all(plan.ask(slot, 1).wanted["user_query"].language == slot.language for slot in slots)
    assert [slot.language for slot in slots] != [
        slot.language for slot in other.slots(FAMILIES[0], TASKS)
    ]


def test_tasks_take_turns_and_none_gets_more_than_its_most():
    config = Synth(examples=1_000, families=only("short_long"))
    found = Counter(slot.instruction for slot in Plan(config).slots(FAMILIES[0], TASKS))
    assert set(found.values()) == {25}
    config.tasks.most_a_task = 3
    assert set(
        Counter(slot.instruction for slot in Plan(config).slots(FAMILIES[0], TASKS)).values()
    ) == {3}
    assert not list(Plan(config).slots(FAMILIES[0], []))


def test_a_schema_asks_for_every_field_with_language_and_length():
    asked = next(
        iter(Plan(Synth()).ask(slot) for slot in Plan(Synth()).slots(BY_NAME["bitext"], ()))
    )
    shape = asked.request.schema
    assert shape is not None
    assert shape["required"] == ["S1", "S2", "S3"]
    assert not shape["additionalProperties"]
    assert {
        name: parse_description(part["description"]) for name, part in shape["properties"].items()
    } == asked.wanted
    assert asked.wanted["S2"].language == asked.slot.target != asked.wanted["S1"].language


@pytest.mark.parametrize("text", INJECTIONS)
def test_no_task_or_document_changes_schema_id_or_sampling(text):
    config = Synth(
        examples=20, families=replace(only("short_long"), grounded=Grounded(share=1, documents="x"))
    )
    plain, hostile = (
        Plan(config, [Document("A document.", "en")]),
        Plan(config, [Document(text, "en")]),
    )
    for family in (FAMILIES[0], BY_NAME["grounded"]):
        for mine, theirs in zip(
            plain.slots(family, ["A task for you"]), hostile.slots(family, [text]), strict=True
        ):
            good, bad = plain.ask(mine).request, hostile.ask(theirs).request
            if (
                family.name == "grounded"
            ):  # how long the document is decides how long its negative should be
                assert set(bad.schema["properties"]) == set(good.schema["properties"])
            else:
                assert bad.schema == good.schema
            assert bad._replace(messages=(), schema=None) == good._replace(messages=(), schema=None)
            assert bad.messages[0] == good.messages[0]
            assert len(bad.messages) == 2


def test_hints_and_topics_come_as_quotations():
    config = Synth(
        examples=50,
        hints=Hints(personas=('a "nurse"',), persona_rate=1, domains=("bees",), domain_rate=0),
    )
    config.tasks.topics = ("law", "sea")
    plan = Plan(config)
    asked = [plan.ask(slot).request.messages[1].content for slot in plan.slots(FAMILIES[0], TASKS)]
    assert all(json.dumps('a "nurse"') in text and "bees" not in text for text in asked)
    found = [plan.brainstorm(FAMILIES[0], number).messages[1].content for number in range(4)]
    assert ['"law"' in text for text in found] == [True, False, True, False]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("less than 5 words", (1, 4)),
        ("at least 50 words", (50, 200)),
        ("5 to 15 words", (5, 15)),
        ("5-10 words", (5, 10)),
        ("200 words", (120, 280)),
        ("less than 1 word", (1, 1)),
    ],
)
def test_bounds_of_lengths(text, wanted):
    assert bounds(text) == wanted


def test_what_is_no_length_is_refused():
    with pytest.raises(ValueError, match="no length"):
        bounds("a few words")


def only(name: str) -> Families:
    """All examples in one family."""
    families = Families()
    for family in FAMILIES:
        if family.field != name:
            getattr(families, family.field).share = 0.0
    return families
