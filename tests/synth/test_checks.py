"""Whether a reply is what was asked for: one fault at a time is found, and what is right is taken."""

import pytest

from e5jax.synth.checks import check
from e5jax.synth.config import Checks
from e5jax.synth.families import BY_NAME
from e5jax.synth.languages import taken_for
from e5jax.synth.reasons import UnfitError
from e5jax.synth.text_spec import Wanted

DOCUMENT = (
    "The lighthouse was built in two years by masons from the village, who carried every stone across the sand at low tide. "
    "Its lamp burned oil until the keeper's daughter replaced it with a gas light that could be seen from twenty miles away."
)
OTHER = (
    "Ships that passed the cape at night used to take their bearing from a fire on the hill, which the fishermen kept alive. "
    "Nobody knows how many boats were lost before that custom began, since the harbour office burned down with all its books."
)
GERMAN = (
    "Der Leuchtturm wurde in zwei Jahren von Maurern aus dem Dorf gebaut, die jeden Stein bei Ebbe über den Sand trugen. "
    "Seine Lampe brannte mit Öl, bis die Tochter des Wärters sie durch ein Gaslicht ersetzte, das man weithin sehen konnte."
)
SHORT_LONG = {
    "user_query": "who built the lighthouse on the cape",
    "positive_document": DOCUMENT,
    "hard_negative_document": OTHER,
}
LABELLED = {
    "input_text": DOCUMENT,
    "label": "maritime history",
    "misleading_label": "travel advice",
}
PAIR = {
    "S1": "The tower was built in two years.",
    "S2": "Der Turm wurde in zwei Jahren gebaut.",
    "S3": "Der Turm wurde in drei Jahren gebaut.",
}
PROMPT = "Write a document about the sea that the keeper of a lighthouse might have written for the masons of the village long ago."


def passes(
    family: str,
    values: dict[str, str],
    language: str = "en",
    target: str = "",
    most: int = 60,
    least: int = 1,
) -> bool:
    row = BY_NAME[family]
    wanted = {
        part.name: Wanted(target if part.target else language, least, most) for part in row.parts
    }
    return check(row, values, wanted, (PROMPT, "A task that is named here"), Checks()).identified


def test_good_replies_pass_and_their_languages_are_identified():
    assert passes("short-long", SHORT_LONG)
    assert passes("long-short", LABELLED)
    assert passes("bitext", PAIR, "en", "de")


WRONG = {
    "positive is the query": (
        "short-long",
        {"positive_document": SHORT_LONG["user_query"]},
        "same-text",
    ),
    "negative is the positive": ("short-long", {"hard_negative_document": DOCUMENT}, "same-text"),
    "negative is the positive but for case and stop": (
        "short-long",
        {"hard_negative_document": DOCUMENT.upper()[:-1]},
        "same-text",
    ),
    "translation is the original": ("sts", {"S2": "The tower was built in two years"}, "same-text"),
    "prompt": ("short-long", {"hard_negative_document": PROMPT}, "copied"),
    "too long": ("short-long", {"user_query": "why " * 200}, "long"),
    "other language": (
        "short-long",
        {"positive_document": GERMAN, "hard_negative_document": GERMAN[:150]},
        "language",
    ),
    "query in another language": (
        "short-long",
        {"user_query": "wer hat den Leuchtturm auf dem Kap gebaut"},
        "language",
    ),
    "label in the text": ("long-short", {"label": "Keeper's daughter"}, "label-in-text"),
    "misleading label in the text": (
        "long-short",
        {"misleading_label": "village"},
        "label-in-text",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_fault_is_found(name):
    family, changed, reason = WRONG[name]
    values = {
        "short-long": SHORT_LONG,
        "long-short": LABELLED,
        "sts": {**PAIR, "S2": "a", "S3": "b"},
    }[family]
    with pytest.raises(UnfitError) as caught:
        passes(family, {**values, **changed})
    assert caught.value.reason == reason


def test_translations_have_the_target_language():
    with pytest.raises(UnfitError, match=r"S2 and S3: de instead of fr"):
        passes("bitext", PAIR, "en", "fr")
    with pytest.raises(UnfitError, match=r"S1: en instead of pl"):
        passes("bitext", PAIR, "pl", "de")


def test_slack_forgives_a_factor_and_no_more():
    assert passes("short-long", SHORT_LONG, least=3, most=20)
    with pytest.raises(UnfitError) as caught:
        passes("short-long", SHORT_LONG, least=40, most=60)
    assert caught.value.reason == "short"


def test_a_label_inside_a_longer_word_is_no_label_in_the_text():
    assert passes(
        "long-short", {**LABELLED, "label": "light house keeping", "misleading_label": "villa"}
    )


def test_words_of_spaceless_scripts_are_counted_by_character():
    text = "灯塔由村里的石匠用两年时间建成,他们在退潮时把每块石头运过沙滩。"
    values = {
        "input": text,
        "positive_document": "看守人的女儿后来把油灯换成了煤气灯,远处都能看到。",
    }
    assert passes("short-short", values, "zh", least=10, most=20)
    with pytest.raises(UnfitError) as caught:
        passes("short-short", values, "zh", least=80, most=90)
    assert caught.value.reason == "short"


def test_a_language_that_the_identifier_lacks_is_taken_and_not_called_identified():
    assert not taken_for("yi")
    assert not passes("short-long", SHORT_LONG, "yi")


def test_short_texts_are_of_no_language():
    assert not passes(
        "short-short", {"input": "Uhr", "positive_document": "hours and minutes"}, "fr"
    )
