"""A folder in BEIR layout, checked line by line: files flow in, a `Retrieval` flows out.

corpus.jsonl     {"_id", "title", "text"} a line; the title may be missing
queries.jsonl    {"_id", "text"} a line
qrels/test.tsv   header `query-id corpus-id score`, tab-separated
task.json        {"instruction": "..."}, and perhaps "limit": tokens to read of a text, "score": what counts; may be missing
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from e5jax.errors import ConfigError

FILES = ("corpus.jsonl", "queries.jsonl", "qrels/test.tsv")
HEADER = "query-id\tcorpus-id\tscore"
SCORES = ("ndcg_at_10", "ndcg_at_1")  # the latter, where one document is right, is how often it comes first
DEPTH = 10  # ranks that count
SHORTEST = 3  # tokens: BOS, one of the text, EOS


class Document(NamedTuple):
    """A title, possibly empty, and a text."""

    title: str
    text: str


class Retrieval(NamedTuple):
    """What to search, what to ask, and what is right: grades by query and document."""

    corpus: dict[str, Document]
    queries: dict[str, str]
    relevant: dict[str, dict[str, int]]
    instruction: str
    limit: int | None  # tokens
    score: str  # one of SCORES


def read_retrieval(folder: Path) -> Retrieval:
    """Reads and checks the folder; raises ConfigError `file:line: reason` for the first thing wrong with it."""
    corpus, queries, relevance = (folder / name for name in FILES)
    documents = {id_: Document(row.get("title", ""), row["text"]) for id_, row in _read_texts(corpus).items()}
    asked = {id_: row["text"] for id_, row in _read_texts(queries).items()}
    return Retrieval(documents, asked, _read_relevant(relevance, asked, documents), **_read_settings(folder / "task.json"))


def ndcg(gained: Float[np.ndarray, "q k"], possible: Float[np.ndarray, "q n"]) -> float:
    """nDCG@10 as trec_eval has it: a document gains its grade, divided by the logarithm of its rank.

    `gained` are grades in the order found, `possible` all that there are, one above 0 in every row.
    """
    discounts = 1 / np.log2(np.arange(2, DEPTH + 2))
    found, best = gained[:, :DEPTH], -np.sort(-possible, axis=1)[:, :DEPTH]
    return float(np.mean((found @ discounts[: found.shape[1]]) / (best @ discounts[: best.shape[1]])))


def _read_texts(path: Path) -> dict[str, dict[str, str]]:
    texts: dict[str, dict[str, str]] = {}
    for where, line in _lines(path):
        row = _parse(line, where)
        for name in ("_id", "text"):
            if not isinstance(row.get(name), str) or not row[name].strip():
                raise ConfigError(f"{where}: {name} must be a string that is not empty")
        if not isinstance(row.get("title", ""), str):
            raise ConfigError(f"{where}: title must be a string")
        if row["_id"] in texts:
            raise ConfigError(f"{where}: _id {row['_id']!r} was given to an earlier line; ids must be unique")
        texts[row["_id"]] = row
    if not texts:
        raise ConfigError(f"{path}: the file is empty")
    return texts


def _read_relevant(path: Path, queries: Mapping[str, object], corpus: Mapping[str, object]) -> dict[str, dict[str, int]]:
    lines = _lines(path)
    where, header = next(lines, (f"{path}:1", ""))
    if header != HEADER:
        raise ConfigError(f"{where}: the first line must be {HEADER!r}, not {header!r}")
    relevant: dict[str, dict[str, int]] = {}
    for where, line in lines:
        query, document, score = _parse_relevance(line, where)
        for id_, known, name in [(query, queries, "queries.jsonl"), (document, corpus, "corpus.jsonl")]:
            if id_ not in known:
                raise ConfigError(f"{where}: there is no _id {id_!r} in {name}")
        relevant.setdefault(query, {})[document] = score
    if not relevant:
        raise ConfigError(f"{path}: no line after the header; nothing could be scored")
    return relevant


def _parse_relevance(line: str, where: str) -> tuple[str, str, int]:
    fields = line.split("\t")
    if len(fields) != 3 or not fields[2].isdecimal():
        raise ConfigError(f"{where}: must be a query id, a corpus id and a whole number, separated by tabs")
    return fields[0], fields[1], int(fields[2])


def _read_settings(path: Path) -> dict[str, Any]:
    """Instruction, limit and score."""
    if not path.exists():
        return {"instruction": "", "limit": None, "score": SCORES[0]}
    values = _parse(path.read_text(encoding="utf-8"), f"{path}:1")
    instruction, limit, score = values.get("instruction"), values.get("limit"), values.get("score", SCORES[0])
    if not isinstance(instruction, str):
        raise ConfigError(f"{path}:1: instruction must be a string")
    if limit is not None and (type(limit) is not int or limit < SHORTEST):
        raise ConfigError(f"{path}:1: limit={limit!r}: must be a whole number of tokens, at least {SHORTEST}")
    if score not in SCORES:
        raise ConfigError(f"{path}:1: score={score!r}: must be one of {', '.join(SCORES)}")
    return {"instruction": instruction, "limit": limit, "score": score}


def _parse(text: str, where: str) -> dict:
    try:
        row = json.loads(text)
    except ValueError as error:
        raise ConfigError(f"{where}: not JSON ({error})") from error
    if not isinstance(row, dict):
        raise ConfigError(f"{where}: not a JSON object")
    return row


def _lines(path: Path) -> Iterator[tuple[str, str]]:
    """Yields `file:line` and the line, skipping empty ones."""
    if not path.is_file():
        raise ConfigError(f"{path}:1: there is no such file; a task folder has corpus.jsonl, queries.jsonl and qrels/test.tsv")
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            if text := line.rstrip("\r\n"):
                yield f"{path}:{number}", text
