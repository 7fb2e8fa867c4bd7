"""Examples that say the same as an earlier one: examples flow in, those to keep flow out.

An example is a duplicate if its query and one of its positives are those of one earlier example, equal or nearly so. A query with
another passage is a second answer, a passage with another query a second question: both are kept. Negatives do not count.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from typing import NamedTuple, Self

from e5jax.data.records import Example
from e5jax.datasets.example_texts import Removed, excerpt, texts_of
from e5jax.datasets.minhash import THRESHOLD, Match, NearIndex, sketch
from e5jax.datasets.normalise import read


class _Place(NamedTuple):
    """A text, and the text that stands for it and all that are nearly equal to it."""

    text: str
    match: Match | None
    number: int


class Earlier:
    """The examples that were kept so far. Use with `with`: it holds temporary files.

    In memory are an id and an index entry for each different text, no texts.
    """

    def __init__(self, threshold: float = THRESHOLD):
        self._open = ExitStack()
        self._queries, self._passages = (
            self._open.enter_context(NearIndex(threshold)) for _ in range(2)
        )
        self._kept: dict[tuple[int, int], str] = {}  # ids by query and positive

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def add(self, example: Example) -> Removed | None:
        """Keeps the example, unless it is a duplicate: then says of what."""
        texts = texts_of(example)
        query = _place(self._queries, texts[0][1])
        positives = [_place(self._passages, text) for part, text in texts if part == "positive"]
        pairs = {(query.number, positive.number): positive for positive in positives}
        if earlier := next((pair for pair in pairs if pair in self._kept), None):
            return _removed(example, query, pairs[earlier], self._kept[earlier])
        self._kept |= dict.fromkeys(pairs, example.id)
        return None


def without_duplicates(
    examples: Iterable[Example], earlier: Earlier, report: Callable[[Removed], object]
) -> Iterator[Example]:
    """Yields each example that is no duplicate of one before it, and reports the others.

    Sets are compared with each other by giving them the same `earlier`: the copy in the first set stays.
    """
    for example in examples:
        if removed := earlier.add(example):
            report(removed)
        else:
            yield example


def _place(index: NearIndex, text: str) -> _Place:
    """The text's place in the index: that of the text which it is equal or nearly equal to, if there is one.

    It is remembered even so: else a copy of it could be put down to a text that came in between.
    """
    found = sketch(read(text))
    match = index.find(found)
    if match and not match.equal:
        index.add_variant(found, match.number)
    return _Place(text, match, match.number if match else index.add(found))


def _removed(example: Example, query: _Place, positive: _Place, matched: str) -> Removed:
    assert query.match is not None  # a text that is new has a number that no earlier example has
    assert positive.match is not None
    part, less = (
        ("query", query)
        if query.match.similarity < positive.match.similarity
        else ("positive", positive)
    )
    assert less.match is not None
    reason = "equal" if query.match.equal and positive.match.equal else "near"
    return Removed(
        "duplicate",
        example.id,
        example.source,
        part,
        reason,
        matched,
        less.match.similarity,
        excerpt(less.text),
    )
