"""Duplicates and answers that come too often."""

from e5jax.data.records import Example
from e5jax.synth.config import Checks
from e5jax.synth.distinct import Distinct
from e5jax.synth.families import BY_NAME
from e5jax.synth.reasons import UnfitError

LONG = "the quick brown fox jumps over the lazy dog and runs away into the deep dark forest behind our house"
COUNTS = dict.fromkeys(BY_NAME, 100)


def add(distinct: Distinct, family: str, query: str, positive: str) -> str:
    try:
        distinct.add(BY_NAME[family], Example("x", query, (positive,)))
    except UnfitError as unfit:
        return unfit.reason
    return "kept"


def test_either_of_query_and_document_makes_a_duplicate():
    with Distinct(Checks(), COUNTS) as distinct:
        assert add(distinct, "short-long", "a query", LONG) == "kept"
        assert add(distinct, "short-long", "A query!", "another document") == "duplicate"
        assert add(distinct, "short-long", "another query", LONG.upper()) == "duplicate"
        assert (
            add(distinct, "short-long", "another query", LONG.replace("lazy", "sleepy"))
            == "near-duplicate"
        )
        assert add(distinct, "short-long", "another query", "another document") == "kept"


def test_what_was_refused_leaves_no_trace():
    with Distinct(Checks(), COUNTS) as distinct:
        add(distinct, "short-long", "a", "b")
        assert add(distinct, "short-long", "a", "c") == "duplicate"
        assert add(distinct, "short-long", "d", "c") == "kept"


def test_families_are_apart_and_labels_recur_up_to_their_share():
    with Distinct(Checks(answers=3, answer_share=0.05), COUNTS) as distinct:
        assert add(distinct, "short-long", "a", "praise") == "kept"
        assert [add(distinct, "long-short", f"text {i}", "praise") for i in range(6)] == [
            "kept"
        ] * 5 + ["frequent-answer"]
        assert add(distinct, "long-short", "text 9", "blame") == "kept"
        assert add(distinct, "long-short", "text 9", "blame") == "duplicate"


def test_one_phrase_may_be_translated_into_several_languages():
    with Distinct(Checks(), COUNTS) as distinct:
        assert add(distinct, "bitext", "good morning", "guten Morgen") == "kept"
        assert add(distinct, "bitext", "good morning", "bonjour") == "kept"
        assert add(distinct, "bitext", "hello", "bonjour") == "duplicate"
