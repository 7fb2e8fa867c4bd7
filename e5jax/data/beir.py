"""A folder in BEIR layout, checked line by line: files flow in, a `Retrieval` flows out.

corpus.jsonl     {"_id", "title", "text"} a line; the title may be missing, and the text be empty
queries.jsonl    {"_id", "text"} a line
qrels/test.tsv   header `query-id corpus-id score`, tab-separated; a score below 1 is not relevant
task.json        {"instruction": "..."}, and perhaps "limit": tokens to read of a text, "score": what counts; may be missing

All but task.json may be compressed, with the suffix of the compression behind their names.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from e5jax.data.compressed import SUFFIXES
from e5jax.data.files import Rejected, lines
from e5jax.errors import ConfigError, RecordError
from e5jax.jsonl import parse_object

FILES = ("corpus.jsonl", "queries.jsonl", "qrels/test.tsv")
HEADER = "query-id\tcorpus-id\tscore"
SCORES = (
    "ndcg_at_10",
    "ndcg_at_1",
)  # the latter, where one document is right, is how often it comes first
DEPTH = 10  # ranks that count
SHORTEST = 3  # tokens: BOS, one of the text, EOS
_GRADE = re.compile(r"-?\d+")


class Document(NamedTuple):
    """A title and a text, each possibly empty."""

    title: str
    text: str


class Judgements(NamedTuple):
    """Grades by query and document. Above 0 is relevant; what is judged need not be in the corpus.

    A document that is missing cannot be retrieved, and counts in the best possible ranking, as in mteb and trec_eval.
    """

    grades: dict[str, dict[str, int]]
    missing_documents: int  # judgements whose document is not in the corpus
    missing_queries: int  # judgements whose query is not among the queries: they are left out


class Retrieval(NamedTuple):
    """What to search, what to ask, and what is right: grades by query and document, negative ones as 0."""

    corpus: dict[str, Document]
    queries: dict[str, str]
    relevant: dict[str, dict[str, int]]
    instruction: str
    limit: int | None  # tokens
    score: str  # one of SCORES
    notes: tuple[str, ...] = ()  # what the files lack, and how it is counted
    skips_own: bool = (
        False  # a query never retrieves the document with its own id: it is the query itself
    )


def read_retrieval(folder: Path) -> Retrieval:
    """Reads and checks the folder; raises ConfigError `file:line: reason` for the first thing wrong with it."""
    corpus, queries, relevance = (find_file(folder, name) for name in FILES)
    documents = {
        id_: Document(row.get("title") or "", row["text"])
        for id_, row in _read_texts(corpus, empty=True).items()
    }
    questions = {id_: row["text"] for id_, row in _read_texts(queries, empty=False).items()}
    judgements = _read_judgements(relevance, questions, documents)
    itself = _queries_in_corpus(documents, questions, judgements.grades)
    notes = _notes(documents, judgements, itself)
    return Retrieval(
        documents,
        questions,
        judgements.grades,
        **_read_settings(folder / "task.json"),
        notes=notes,
        skips_own=itself > 0,
    )


def _queries_in_corpus(
    documents: Mapping[str, Document],
    queries: Mapping[str, str],
    grades: Mapping[str, dict[str, int]],
) -> int:
    """How many queries are documents too, under their own id and without being their own answer, as in ArguAna and Quora."""
    if any(of.get(query, 0) > 0 for query, of in grades.items()):
        return 0
    texts = {query: documents[query] for query in grades if query in documents}
    return sum(
        queries[query].strip() in (one.text.strip(), f"{one.title} {one.text}".strip())
        for query, one in texts.items()
    )


def _notes(
    documents: Mapping[str, Document], judgements: Judgements, itself: int
) -> tuple[str, ...]:
    """What is missing, with its number."""
    empty = sum(not f"{one.title}{one.text}".strip() for one in documents.values())
    judged = sum(map(len, judgements.grades.values()))
    found = [
        (
            judgements.missing_documents,
            f"of {judged:,} judgements are of documents that corpus.jsonl lacks: never retrieved",
        ),
        (
            judgements.missing_queries,
            "judgements are of queries that queries.jsonl lacks: left out",
        ),
        (
            empty,
            f"of {len(documents):,} documents have neither title nor text: embedded as empty texts",
        ),
        (
            itself,
            "queries are documents with the same id: a query does not retrieve the document with its own id",
        ),
    ]
    return tuple(f"{count:,} {what}" for count, what in found if count)


def ndcg(gained: Float[np.ndarray, "q k"], possible: Float[np.ndarray, "q n"]) -> float:
    """nDCG@10 as trec_eval has it: a document gains its grade, divided by the logarithm of its rank.

    `gained` are grades in the order found, `possible` all that there are, none negative. A query without a grade above 0 has 0.
    """
    discounts = 1 / np.log2(np.arange(2, DEPTH + 2))
    found, best = gained[:, :DEPTH], -np.sort(-possible, axis=1)[:, :DEPTH]
    ideal = best @ discounts[: best.shape[1]]
    return float(np.mean(found @ discounts[: found.shape[1]] / np.where(ideal > 0, ideal, 1.0)))


def _read_texts(path: Path, *, empty: bool) -> dict[str, dict[str, str]]:
    """Rows by id; with `empty`, a text may be."""
    texts: dict[str, dict[str, str]] = {}
    for where, line in _lines(path):
        row = _parse(line, where)
        for name, may_be_empty in (("_id", False), ("text", empty)):
            if not isinstance(row.get(name), str) or not (may_be_empty or row[name].strip()):
                raise ConfigError(
                    f"{where}: {name} must be a string{'' if may_be_empty else ' that is not empty'}"
                )
        if not isinstance(row.get("title") or "", str):
            raise ConfigError(f"{where}: title must be a string")
        if row["_id"] in texts:
            raise ConfigError(
                f"{where}: _id {row['_id']!r} was given to an earlier line; ids must be unique"
            )
        texts[row["_id"]] = row
    if not texts:
        raise ConfigError(f"{path}: the file is empty")
    return texts


def _read_judgements(
    path: Path, queries: Mapping[str, object], corpus: Mapping[str, object]
) -> Judgements:
    rows = _lines(path)
    where, header = next(rows, (f"{path}:1", ""))
    if header != HEADER:
        raise ConfigError(f"{where}: the first line must be {HEADER!r}, not {header!r}")
    grades: dict[str, dict[str, int]] = {}
    first = ""
    missing_queries = 0
    for where, line in rows:
        query, document, score = _parse_relevance(line, where)
        first = first or f"{where}: query {query!r}, document {document!r}"
        if query not in queries:
            missing_queries += 1
            continue
        grades.setdefault(query, {})[document] = max(score, 0)
    if not first:
        raise ConfigError(f"{path}: no line after the header; nothing could be scored")
    if not any(document in corpus for of in grades.values() for document in of):
        raise ConfigError(
            f"{first}: no judgement names both a query of queries.jsonl and a document of corpus.jsonl; these are the files of "
            "different sets"
        )
    missing = sum(document not in corpus for of in grades.values() for document in of)
    return Judgements(grades, missing, missing_queries)


def _parse_relevance(line: str, where: str) -> tuple[str, str, int]:
    fields = line.split("\t")
    if len(fields) != 3 or not _GRADE.fullmatch(fields[2]):
        raise ConfigError(
            f"{where}: must be a query id, a corpus id and a whole number, separated by tabs"
        )
    return fields[0], fields[1], int(fields[2])


def _read_settings(path: Path) -> dict[str, Any]:
    """Instruction, limit and score."""
    if not path.exists():
        return {"instruction": "", "limit": None, "score": SCORES[0]}
    values = _parse(path.read_text(encoding="utf-8"), f"{path}:1")
    instruction, limit, score = (
        values.get("instruction"),
        values.get("limit"),
        values.get("score", SCORES[0]),
    )
    if not isinstance(instruction, str):
        raise ConfigError(f"{path}:1: instruction must be a string")
    if limit is not None and (type(limit) is not int or limit < SHORTEST):
        raise ConfigError(
            f"{path}:1: limit={limit!r}: must be a whole number of tokens, at least {SHORTEST}"
        )
    if score not in SCORES:
        raise ConfigError(f"{path}:1: score={score!r}: must be one of {', '.join(SCORES)}")
    return {"instruction": instruction, "limit": limit, "score": score}


def _parse(text: str, where: str) -> dict:
    try:
        return parse_object(text)
    except RecordError as error:
        raise ConfigError(f"{where}: {error}") from error


def find_file(folder: Path, name: str) -> Path:
    """A file of the folder, or the same compressed."""
    return next(
        (path for suffix in ("", *SUFFIXES) if (path := folder / f"{name}{suffix}").is_file()),
        folder / name,
    )


def _lines(path: Path) -> Iterator[tuple[str, str]]:
    """Yields `file:line` and the line, skipping empty ones."""
    if not path.is_file():
        raise ConfigError(
            f"{path}:1: there is no such file; a task folder has corpus.jsonl, queries.jsonl and qrels/test.tsv"
        )
    for line in lines(path):
        if isinstance(line, Rejected):
            raise ConfigError(str(line))
        yield f"{path}:{line.number}", line.text
