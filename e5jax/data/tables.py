"""Records of CSV and TSV files.

TSV is one record a line and no quoting, as sentence-transformers and MS MARCO write it. CSV has quoted fields, which may go
over several lines: a quote that is never closed rejects the line it is in, not what follows.
"""

import csv
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from e5jax.data.compressed import Limits
from e5jax.data.files import Line, Rejected, lines

LINES = 1_000  # most lines of one CSV record


class Record(NamedTuple):
    """The fields of a record, and the line it begins in."""

    number: int
    fields: list[str]


def records(
    path: Path, limits: Limits, separator: str, quoted: bool
) -> Iterator[Record | Rejected]:
    """The records after the header, which comes first; all have as many fields as it."""
    return (_quoted if quoted else _plain)(path, limits, separator)


def _plain(path: Path, limits: Limits, separator: str) -> Iterator[Record | Rejected]:
    width = 0
    for line in lines(path, limits):
        if isinstance(line, Rejected):
            yield line
            continue
        fields = line.text.split(separator)
        width = width or len(fields)
        yield (
            Record(line.number, fields)
            if len(fields) == width
            else _uneven(path, line.number, len(fields), width)
        )


def _quoted(path: Path, limits: Limits, separator: str) -> Iterator[Record | Rejected]:
    csv.field_size_limit(
        max(csv.field_size_limit(), limits.line_bytes)
    )  # csv has one for the whole process
    source = lines(path, limits, blank=True)  # a quoted field may have them
    waiting: deque[Line | Rejected] = deque()
    width = 0
    while head := waiting.popleft() if waiting else next(source, None):
        if isinstance(head, Rejected):
            yield head
            continue
        if not head.text.strip():
            continue
        taken: list[Line] = []
        following = _following(head, waiting, source, limits.line_bytes)
        fields = _parse(_kept(following, taken), separator)
        width = width or len(fields or ())
        if fields is not None and len(fields) == width:
            yield Record(head.number, fields)
            continue
        waiting.extendleft(
            reversed(taken[1:])
        )  # the quote may be wrong, the lines after it need not be
        if fields is None:
            yield Rejected(
                str(path), head.number, "not CSV: a quote is not closed, or stands inside a field"
            )
        else:
            yield _uneven(path, head.number, len(fields), width)


def _following(
    head: Line, waiting: deque[Line | Rejected], source: Iterator[Line | Rejected], limit: int
) -> Iterator[Line]:
    """The head, then lines behind it as they are asked for, until one is rejected or there are more than a record has."""
    line: Line | Rejected | None = head
    size = count = 0
    while isinstance(line, Line) and size + len(line.text) <= limit and count < LINES:
        size, count = size + len(line.text), count + 1
        yield line
        line = waiting.popleft() if waiting else next(source, None)
    waiting.extendleft([line] if line else [])


def _kept(following: Iterator[Line], taken: list[Line]) -> Iterator[str]:
    for line in following:
        taken.append(line)
        yield line.text + "\n"


def _parse(text: Iterator[str], separator: str) -> list[str] | None:
    try:
        return next(csv.reader(text, delimiter=separator, strict=True), None)
    except csv.Error:
        return None


def _uneven(path: Path, number: int, have: int, width: int) -> Rejected:
    return Rejected(
        str(path), number, f"number of fields is not that of the header: {have}, not {width}"
    )


def header(found: Iterator[Record | Rejected]) -> tuple[list[Rejected], list[str]]:
    """The first record and what was rejected before it."""
    before = []
    for record in found:
        if isinstance(record, Record):
            return before, record.fields
        before.append(record)
    return before, []
