"""Examples that say the same as an earlier one: examples flow in, those to keep flow out.

An example is a duplicate if its query and one of its positives are those of one earlier example, equal or nearly so. A query with
another passage is a second answer, a passage with another query a second question: both are kept. Negatives do not count.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from e5jax.data.near import THRESHOLD, Match, NearIndex, sketch
from e5jax.data.texts import Removed, excerpt, texts_of
from e5jax.data.words import read
from e5jax.records import Example


class _Place(NamedTuple):
    """A text, and the text that stands for it and all that are nearly equal to it."""

    text: str
    match: Match | None
    number: int


def without_duplicates(
    examples: Iterable[Example], report: Callable[[Removed], object], threshold: float = THRESHOLD
) -> Iterator[Example]:
    """Yields each example that is no duplicate of one before it, and reports the others.

    Sets are compared with each other by chaining them: the copy in the first set stays. Memory holds an id and an index entry
    for each different text, no texts.
    """
    with NearIndex(threshold) as queries, NearIndex(threshold) as passages:
        kept: dict[tuple[int, int], str] = {}
        for example in examples:
            texts = texts_of(example)
            query = _place(queries, texts[0][1])
            positives = [_place(passages, text) for part, text in texts if part == "positive"]
            pairs = {(query.number, positive.number): positive for positive in positives}
            if earlier := next((pair for pair in pairs if pair in kept), None):
                report(_removed(example, query, pairs[earlier], kept[earlier]))
            else:
                kept |= dict.fromkeys(pairs, example.id)
                yield example


def _place(index: NearIndex, text: str) -> _Place:
    """The text's place in the index, which grows only by texts that are not nearly equal to another."""
    found = sketch(read(text))
    match = index.find(found)
    return _Place(text, match, match.number if match else index.add(found))


def _removed(example: Example, query: _Place, positive: _Place, matched: str) -> Removed:
    assert query.match is not None  # a text that is new has a number that no earlier example has
    assert positive.match is not None
    part, less = ("query", query) if query.match.similarity < positive.match.similarity else ("positive", positive)
    assert less.match is not None
    reason = "equal" if query.match.equal and positive.match.equal else "near"
    return Removed(example.id, example.source, part, reason, matched, less.match.similarity, excerpt(less.text))
