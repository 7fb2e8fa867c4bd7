"""Tevatron's training JSONL, in which MS MARCO, NQ, MIRACL and Mr.TyDi are published.

A line has `query_id`, `query`, `positive_passages` and `negative_passages`: lists of objects with docid, title and text.
"""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from e5jax.data.records import Example
from e5jax.datasets.readers.lines import Line, examples, files
from e5jax.datasets.readers.result import Options, Outcome
from e5jax.datasets.readers.texts import identity, passages
from e5jax.jsonl import parse_object


def read(path: Path, options: Options) -> Iterator[Outcome]:
    """A file or a folder of `*.jsonl`."""
    for file in files(path, ".jsonl"):
        yield from examples(file, options, partial(_example, options))


def _example(options: Options, line: Line, source: str) -> Example:
    values = parse_object(line.text)
    return Example(
        id=identity(values, "query_id"),
        query=values.get("query", ""),
        positives=passages(values, "positive_passages"),
        negatives=passages(values, "negative_passages"),
        instruction=options.instruction,
        language=options.language,
        source=source,
    )
