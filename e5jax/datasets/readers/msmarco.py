"""MS MARCO's TSV files, passage and document ranking, and those of T2Ranking, which have its names and a header.

Texts: `collection.tsv` (id, passage) or `msmarco-docs.tsv` (id, url, title, body), and `queries.SPLIT.tsv` (id, query).
Pairs: `qrels.SPLIT.tsv` (query, 0, document, relevance; or query and relevant document), or `qidpidtriples.SPLIT….tsv`
(query, positive, negative). A document of a relevance below `options.relevance` is a negative.
"""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from e5jax.data.records import Example
from e5jax.datasets.readers.beir import filled, one_of
from e5jax.datasets.readers.lines import Line, examples
from e5jax.datasets.readers.offsets import Offsets
from e5jax.datasets.readers.qrels import Judgment, Layout, read_judged
from e5jax.datasets.readers.result import Options, Outcome
from e5jax.errors import ConfigError, RecordError

_TRIPLES = "qidpidtriples"


def read(path: Path, options: Options) -> Iterator[Outcome]:
    """A folder with one file of pairs for `options.split`, or that file itself, its texts beside it."""
    if not path.exists():
        raise ConfigError(f"{path}: no such file or folder")
    folder = path if path.is_dir() else path.parent
    pairs = path if path.is_file() else _pairs(folder, options.split)
    corpus = one_of(folder, "collection.tsv", "msmarco-docs.tsv")
    queries = one_of(
        folder,
        f"queries.{options.split}.tsv",
        f"msmarco-doc{options.split}-queries.tsv",
        "queries.tsv",
    )
    named = options._replace(source=options.source or folder.name)
    if pairs.name.startswith(_TRIPLES):
        return _read_triples(corpus, queries, pairs, named)
    judgment = partial(graded, options.relevance)
    return read_judged(
        Layout([corpus], queries, pairs, _document, query_line, judgment, _is_header), named
    )


def _is_header(line: str) -> bool:
    return line.split("\t", maxsplit=1)[0] in (
        "pid",
        "qid",
    )  # ids of both are numbers, or a letter and a number


def _pairs(folder: Path, split: str) -> Path:
    patterns = (
        f"qrels.{split}.tsv*",
        f"msmarco-doc{split}-qrels.tsv*",
        f"{_TRIPLES}.{split}*.tsv*",
    )
    found = sorted(file for pattern in patterns for file in folder.glob(pattern))
    if len(found) != 1:
        have = ", ".join(file.name for file in found) or "none"
        raise ConfigError(
            f"{folder}: needs one of {', '.join(patterns)}, has {have}; or give the path of the file itself"
        )
    return found[0]


def _read_triples(
    corpus: Path, queries: Path, triples: Path, options: Options
) -> Iterator[Outcome]:
    with (
        Offsets(corpus, options.limits, _document) as documents,
        Offsets(queries, options.limits, query_line) as asked,
    ):
        yield from documents.scan(unique=True)
        yield from asked.scan(unique=True)
        yield from examples(triples, options, partial(_triple, asked, documents, options))


def _triple(
    asked: Offsets[str], documents: Offsets[str], options: Options, line: Line, source: str
) -> Example:
    query, positive, negative = _fields(line.text, 3)
    return Example(
        id=f"{query}:{line.number}",
        query=_text(asked, query, "query"),
        positives=(_text(documents, positive, "document"),),
        negatives=(_text(documents, negative, "document"),),
        instruction=options.instruction,
        language=options.language,
        source=source,
    )


def _text(index: Offsets[str], identity: str, what: str) -> str:
    found = index.find(identity)
    if not found:
        raise RecordError(f"{what} is not there: {identity!r}")
    return found[0].value


def _document(line: str) -> tuple[str, str]:
    fields = line.split("\t")
    if len(fields) == 4:
        return _id(fields[0]), filled(f"{fields[2]} {fields[3]}".strip(), "text")
    return query_line(line)


def query_line(line: str) -> tuple[str, str]:
    """Id and text."""
    identity, text = _fields(line, 2)
    return _id(identity), filled(text, "text")


def graded(relevance: int, line: str) -> tuple[str, Judgment]:
    """A judgment from a line of qrels in TREC's layout, or of two ids that belong together."""
    fields = line.split()  # passages: tabs, documents: blanks
    if len(fields) == 2:
        return fields[0], Judgment(fields[1], True)
    if len(fields) != 4 or fields[3] not in ("0", "1", "2", "3"):
        raise RecordError(
            "not a judgment: needs query, 0, document and a relevance from 0 to 3, or query and document"
        )
    return fields[0], Judgment(fields[2], int(fields[3]) >= relevance)


def _fields(line: str, count: int) -> list[str]:
    fields = line.split("\t")
    if len(fields) != count:
        raise RecordError(f"number of fields is wrong: {len(fields)}, not {count}")
    return fields


def _id(text: str) -> str:
    return filled(text, "id")
