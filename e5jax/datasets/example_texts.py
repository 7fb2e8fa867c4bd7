"""The texts of an example, and what is said of an example that was removed for one of them."""

import re
from collections.abc import Sequence
from typing import Literal, NamedTuple

from e5jax.data.records import Example

EXCERPT = 120  # characters
_UNPRINTABLE = re.compile(
    r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)  # with controls of direction

Part = Literal["query", "positive", "negative"]
PARTS: tuple[Part, ...] = ("query", "positive", "negative")
Reason = Literal["equal", "near", "contains", "contained"]
Cause = Literal["duplicate", "contamination"]


class Removed(NamedTuple):
    """An example left out. `similarity` belongs to `reason`: a Jaccard similarity or a share of n-grams, 1.0 for equal texts."""

    cause: Cause
    id: str
    source: str
    part: Part  # where the text is in the example; of a duplicate, the part that matches less well
    reason: Reason
    matched_id: str  # of the example that was kept, or of the evaluation text
    similarity: float
    excerpt: str  # the beginning of the text, on one line


def texts_of(example: Example) -> list[tuple[Part, str]]:
    """All texts of an example: the query first, then the positives, then the negatives. No other code here knows the fields."""
    parts: list[tuple[Part, Sequence[str]]] = [
        ("positive", example.positives),
        ("negative", example.negatives),
    ]
    return [("query", example.query), *((part, text) for part, texts in parts for text in texts)]


def excerpt(text: str) -> str:
    """The beginning of a text, spaces and line breaks made single spaces."""
    return " ".join(text[: 4 * EXCERPT].split())[:EXCERPT]


def printable(text: str, kept: str = "") -> str:
    """The text with escapes in place of what ends a line, steers a terminal or is no character, except for those `kept`."""
    return _UNPRINTABLE.sub(
        lambda found: found[0] if found[0] in kept else found[0].encode("unicode_escape").decode(),
        text,
    )
