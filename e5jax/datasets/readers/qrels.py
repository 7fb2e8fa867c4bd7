"""Queries, a corpus and judgments by id, in files of their own: BEIR, MS MARCO and MIRACL."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from e5jax.data.records import Example, check_example
from e5jax.datasets.readers.lines import lines
from e5jax.datasets.readers.offsets import Found, Offsets, find_in
from e5jax.datasets.readers.result import Options, Outcome, Rejected
from e5jax.errors import RecordError


class Judgment(NamedTuple):
    """A document for a query: a positive if `good`."""

    document: str
    good: bool


class Layout(NamedTuple):
    """Files, and how to read a line of each: `(id, text)`, and `(query id, Judgment)`."""

    corpora: Sequence[Path]
    queries: Path
    judgments: Path
    document: Callable[[str], tuple[str, str]]
    query: Callable[[str], tuple[str, str]]
    judgment: Callable[[str], tuple[str, Judgment]]
    is_header: Callable[[str], bool] = lambda _: False  # of a line of any of the files


def read_judged(layout: Layout, options: Options) -> Iterator[Outcome]:
    """An example for each query that has a judgment, in the order of the queries; all its good documents are positives."""
    limits = options.limits
    with ExitStack() as opened:
        corpora = [
            opened.enter_context(Offsets(path, limits, layout.document)) for path in layout.corpora
        ]
        judgments = opened.enter_context(Offsets(layout.judgments, limits, layout.judgment))
        for corpus in corpora:
            yield from corpus.scan(unique=True, skip=layout.is_header)
        yield from judgments.scan(unique=False, skip=layout.is_header)
        for line in lines(layout.queries, limits):
            if isinstance(line, Rejected):
                yield line
                continue
            if layout.is_header(line.text):
                continue
            try:
                identity, query = layout.query(line.text)
                if judgments.was_used(identity):
                    raise RecordError(f"id occurs again: {identity!r}; the first one counts")
                found, missing = _documents(judgments.find(identity), corpora, layout)
                yield from missing
                if found or missing:  # a query without judgments belongs to another split
                    yield check_example(_example(identity, query, found, options))
            except RecordError as error:
                yield Rejected(str(layout.queries), line.number, str(error))
        for number, identity in judgments.unused():
            yield Rejected(str(layout.judgments), number, f"query is not there: {identity!r}")


def _documents(
    judged: list[Found[Judgment]], corpora: Sequence[Offsets[str]], layout: Layout
) -> tuple[list[tuple[str, bool]], list[Rejected]]:
    texts, missing = [], []
    for number, judgment in judged:
        found = find_in(corpora, judgment.document)
        if found:
            texts.append((found.value, judgment.good))
        else:
            missing.append(
                Rejected(
                    str(layout.judgments), number, f"document is not there: {judgment.document!r}"
                )
            )
    return texts, missing


def _example(identity: str, query: str, found: list[tuple[str, bool]], options: Options) -> Example:
    return Example(
        id=identity,
        query=query,
        positives=tuple(text for text, good in found if good),
        negatives=tuple(text for text, good in found if not good),
        instruction=options.instruction,
        language=options.language,
        source=options.source,
    )
