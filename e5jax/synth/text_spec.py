"""Language and length of a text field, as its description in a JSON schema states them."""

import re
from typing import NamedTuple


class Wanted(NamedTuple):
    """What a text field of a reply should be like. Its description in the schema says so, to models and to the demo server."""

    language: str  # ISO 639-1, or another code where that has none
    least: int = 1  # words
    most: int = 20


def describe(what: str, wanted: Wanted) -> str:
    """The `description` of a text field in a JSON schema."""
    return (
        f"{what.rstrip('.')}. Language: {wanted.language}. Words: {wanted.least} to {wanted.most}."
    )


def parse_description(text: str) -> Wanted | None:
    """Inverse of `describe`; None where nothing is said."""
    if found := _DESCRIPTION.search(text):
        return Wanted(found[1], int(found[2]), int(found[3]))
    return None


_DESCRIPTION = re.compile(r"Language: ([A-Za-z-]{2,12})\. Words: (\d{1,6}) to (\d{1,6})\.$")
