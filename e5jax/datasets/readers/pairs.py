"""Pairs and triplets of sentence-transformers: JSONL, CSV or TSV.

A JSONL line is an object with the columns anchor, positive and perhaps negative or negative_1, …; an array
`[anchor, positive]` or `[anchor, positive, negative, …]`; or an object with query, pos and neg, the last two lists. CSV and
TSV have a header with the names of the columns. `rows` knows the names.
"""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from e5jax.data.files import kind_of
from e5jax.data.records import Example, check_example
from e5jax.data.tables import header, records
from e5jax.datasets.readers.lines import Line, examples, files, name_of
from e5jax.datasets.readers.result import Options, Outcome, Rejected
from e5jax.datasets.readers.rows import columns, row_example
from e5jax.errors import ConfigError, RecordError
from e5jax.jsonl import parse_value


def read(path: Path, options: Options) -> Iterator[Outcome]:
    """A file or a folder of `*.jsonl`, `*.csv` and `*.tsv`."""
    for file in files(path, ".jsonl", ".csv", ".tsv"):
        named = options._replace(source=options.source or name_of(file))
        kind = kind_of(file)
        if kind in ("csv", "tsv"):
            yield from _table(file, named, tabs=kind == "tsv")
        elif kind == "jsonl":
            yield from examples(file, named, partial(_example, named))
        else:
            raise ConfigError(f"{file}: pairs are read from JSON lines, CSV and TSV")


def _example(options: Options, line: Line, source: str) -> Example:
    values = parse_value(line.text)
    if isinstance(values, list):
        names = ["query", "positive", *(f"negative_{i}" for i in range(1, len(values) - 1))]
        values = dict(zip(names, values, strict=False))
    if not isinstance(values, dict):
        raise RecordError("not a JSON object or array")
    return row_example(values, columns(values, options), options, f"{source}:{line.number}")


def _table(file: Path, options: Options, *, tabs: bool) -> Iterator[Outcome]:
    found = records(file, options.limits, "\t" if tabs else ",", quoted=not tabs)
    before, names = header(found)
    yield from before
    try:
        parts = columns(names, options)
    except RecordError as error:
        yield Rejected(str(file), 1 + len(before), str(error))
        return
    for record in found:
        if isinstance(record, Rejected):
            yield record
            continue
        row = {name: field for name, field in zip(names, record.fields, strict=True) if field}
        try:
            yield check_example(
                row_example(row, parts, options, f"{options.source}:{record.number}")
            )
        except RecordError as error:
            yield Rejected(str(file), record.number, str(error))
