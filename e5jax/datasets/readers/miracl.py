"""MIRACL as its authors publish it on the hub: topics and judgments in one data set, corpora in another.

`topics.miracl-v1.0-LANGUAGE-SPLIT.tsv` (id, query), `qrels.miracl-v1.0-LANGUAGE-SPLIT.tsv` (query, Q0, document, relevance) and
`miracl-corpus-v1.0-LANGUAGE/docs-*.jsonl.gz` (docid, title, text), all anywhere below one folder.
"""

import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from e5jax.data.compressed import bare_name
from e5jax.datasets.readers.beir import filled
from e5jax.datasets.readers.lines import files
from e5jax.datasets.readers.msmarco import graded, query_line
from e5jax.datasets.readers.qrels import Layout, read_judged
from e5jax.datasets.readers.result import Options, Outcome
from e5jax.datasets.readers.texts import identity, passage
from e5jax.errors import ConfigError
from e5jax.jsonl import parse_object

TOPICS = re.compile(r"topics\.miracl-v[\d.]+-([a-z]+)-([a-z-]+)\.tsv")


def read(path: Path, options: Options) -> Iterator[Outcome]:
    """A folder; the languages that it has topics of, one after the other."""
    known = files(path, ".tsv", ".jsonl")
    topics = [
        (file, found[1])
        for file in known
        if (found := TOPICS.fullmatch(bare_name(file))) and found[2] == options.split
    ]
    if not topics:
        raise ConfigError(f"{path}: has no topics.miracl-v1.0-LANGUAGE-{options.split}.tsv")
    for file, language in topics:
        layout = _layout(path, file, language, known, options)
        yield from read_judged(
            layout, options._replace(language=language, source=options.source or path.name)
        )


def _layout(path: Path, topics: Path, language: str, known: list[Path], options: Options) -> Layout:
    wanted = bare_name(topics).replace("topics.", "qrels.", 1)
    judgments = next((file for file in known if bare_name(file) == wanted), None)
    corpora = [
        file
        for file in known
        if file.parent.name.endswith(f"-{language}") and bare_name(file).endswith(".jsonl")
    ]
    if judgments is None or not corpora:
        missing = wanted if judgments is None else f"miracl-corpus-v1.0-{language}/docs-*.jsonl.gz"
        raise ConfigError(f"{path}: has {topics.name}, but no {missing}")
    return Layout(
        corpora, topics, judgments, _document, query_line, partial(graded, options.relevance)
    )


def _document(line: str) -> tuple[str, str]:
    values = parse_object(line)
    return identity(values, "docid"), filled(passage(values, "text"), "text")
