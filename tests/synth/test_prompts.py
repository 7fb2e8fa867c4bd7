"""Prompts: what is put into them stays a quotation, and their wording changes only on purpose."""

import json
import os
from pathlib import Path

import pytest

from e5jax.synth.families import FAMILIES
from e5jax.synth.prompts import (
    PLACEHOLDER,
    SPECIAL,
    TASK,
    examples,
    fill,
    harmless,
    quoted,
    templates,
)
from tests.synth.injections import INJECTIONS

GOLDEN = Path(__file__).parent / "prompts.golden.txt"
NAMES = (
    *(f"{family.name}.generate" for family in FAMILIES),
    *(f"{family.name}.brainstorm" for family in FAMILIES if family.brainstorms),
    *("judge.generate", "relabel.generate", "system", "persona", "domain", "topic"),
)


class Named(dict):
    """Each placeholder filled with its own name."""

    def __missing__(self, name: str) -> str:
        return f"«{name}»"


def test_every_template_is_the_golden_one():
    """After a change on purpose: `GOLDEN=write pytest tests/synth/test_prompts.py`, and read the difference."""
    found = "\n".join(
        f"=== {name} {i} ===\n{fill(text, Named())}"
        for name in NAMES
        for i, text in enumerate(templates(name))
    )
    if os.environ.get("GOLDEN") == "write":
        GOLDEN.write_text(found, encoding="utf-8")
    assert found == GOLDEN.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "family",
    [family for family in FAMILIES if family.name != "grounded"],
    ids=lambda family: family.name,
)
def test_a_family_has_several_templates_and_each_names_all_its_fields(family):
    found = templates(f"{family.name}.generate")
    assert len(found) >= 3
    for text in found:
        assert all(part.name in text for part in family.parts)
        assert {"language"} <= set(PLACEHOLDER.findall(text)) or {"source", "target"} <= set(
            PLACEHOLDER.findall(text)
        )


def test_example_tasks_are_different_in_every_family():
    shown = [task for family in FAMILIES if family.brainstorms for task in examples(family.name)]
    assert len(shown) == len(set(shown)) >= 28


@pytest.mark.parametrize("text", INJECTIONS)
def test_whatever_is_quoted_is_one_string_without_special_tokens(text):
    found = quoted(text, TASK)
    inside = json.loads(found)
    assert isinstance(inside, str)
    assert found.isprintable() or "\u200d" in found
    assert len(inside) <= TASK
    assert not SPECIAL.search(inside)
    assert "\n" not in found


@pytest.mark.parametrize("text", INJECTIONS)
def test_a_text_changes_nothing_around_its_quotation(text):
    template = templates("short-long.generate")[0]
    others = dict.fromkeys(PLACEHOLDER.findall(template), "x")
    before, after = fill(template, others | {"task": "\0"}).split("\0")
    found = fill(template, others | {"task": quoted(text, TASK)})
    assert found.startswith(before)
    assert found.endswith(after)
    value, end = json.JSONDecoder().raw_decode(found[len(before) :])
    assert isinstance(value, str)
    assert found[len(before) + end :] == after


def test_joiners_of_persian_and_emoji_survive():
    assert harmless("می\u200cخواهم 👩\u200d🔧", 100) == "می\u200cخواهم 👩\u200d🔧"
