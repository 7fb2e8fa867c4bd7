"""The texts of a file, one after the other: JSON lines, CSV, TSV, lines of text or Parquet; `data.files` says which it is."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from e5jax.data.compressed import LIMITS, chunks
from e5jax.data.files import Kind, Rejected, kind_of, lines, objects
from e5jax.data.json_arrays import elements
from e5jax.data.tables import header, records
from e5jax.errors import ConfigError, RecordError

NAMES = ("id", "_id")  # of a row, by preference


class Row(NamedTuple):
    """A text with its name, empty where the file gives none."""

    id: str
    text: str


class Texts:
    """The rows of a file, read anew each time that they are iterated over. See `read_rows`.

    All rows have an id or none has. Raises ConfigError `file:line: reason`, for any row, when it is made.
    """

    def __init__(self, path: Path, field: str = "text"):
        if not path.is_file():
            raise ConfigError(f"--input={path}: there is no such file")
        self._path, self._field = path, field
        digest, self.named, self.count, first = hashlib.sha256(), False, 0, 0
        for number, row in read_rows(path, field):
            digest.update(f"{len(row.text)} {row.text}".encode("utf-8", "surrogatepass"))
            if not self.count:
                self.named, first = bool(row.id), number
            elif bool(row.id) != self.named:
                has, other = ("an id", "none") if row.id else ("no id", "one")
                raise ConfigError(
                    f"{path}:{number}: has {has}, but {path}:{first} has {other}; give every row an id, or none"
                )
            self.count += 1
        if not self.count:
            raise ConfigError(f"--input={path}: no texts in it")
        self.fingerprint = digest.hexdigest()

    def __iter__(self) -> Iterator[Row]:
        return (row for _, row in read_rows(self._path, self._field))


def read_rows(path: Path, field: str = "text") -> Iterator[tuple[int, Row]]:
    """Line and content of each row of a file.

    A line of text is a row, blank or not. In the other kinds of files the text is in `field`, behind a `title` where there is
    one and `field` is `text`, as in BEIR. Raises ConfigError `file:line: reason`; the line of Parquet is its row.
    """
    kind = kind_of(path)
    if kind == "text" and field != "text":
        raise ConfigError(
            f"--field={field}: {path} is lines of text, which have no fields; leave --field out"
        )
    for number, values in _text_lines(path) if kind == "text" else _records(path, kind, field):
        try:
            yield number, _row(values, field)
        except RecordError as error:
            raise ConfigError(f"{path}:{number}: {error}") from error


def _text_lines(path: Path) -> Iterator[tuple[int, str]]:
    for line in lines(path, blank=True):
        if isinstance(line, Rejected):
            raise ConfigError(str(line))
        if "\r" in line.text:
            raise ConfigError(
                f"{path}:{line.number}: a carriage return inside the line; lines must end in LF or CR LF"
            )
        yield line.number, line.text


def _records(path: Path, kind: Kind, field: str) -> Iterator[tuple[int, dict[str, Any]]]:
    if kind == "parquet":
        from e5jax.inference.parquet_vectors import records as rows_of  # noqa: PLC0415  text files need no Arrow

        return enumerate(rows_of(path, (*NAMES, "title", field), field), start=1)
    if kind == "array":
        return _elements(path)
    return objects(path) if kind == "jsonl" else _table(path, field, tabs=kind == "tsv")


def _elements(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    for element in elements(chunks(path, LIMITS), str(path), LIMITS, ()):
        if isinstance(element, Rejected):
            raise ConfigError(str(element))
        yield element.number, element.values


def _table(path: Path, field: str, *, tabs: bool) -> Iterator[tuple[int, dict[str, Any]]]:
    rows = records(path, LIMITS, "\t" if tabs else ",", quoted=not tabs)
    rejected, names = header(rows)
    if rejected:
        raise ConfigError(str(rejected[0]))
    if names and field not in names:
        raise ConfigError(
            f"{path}:1: no column `{field}` among {', '.join(names)}; --field names the one that is to be encoded"
        )
    if twice := [name for name in (field, *NAMES, "title") if names.count(name) > 1]:
        raise ConfigError(f"{path}:1: the column {twice[0]!r} occurs twice in the header")
    for row in rows:
        if isinstance(row, Rejected):
            raise ConfigError(str(row))
        yield row.number, dict(zip(names, row.fields, strict=True))


def _row(values: dict[str, Any] | str, field: str) -> Row:
    if isinstance(values, str):
        return Row("", _checked(values))
    text = values.get(field)
    if not isinstance(text, str):
        raise RecordError(f"no string `{field}`; --field names the one that is to be encoded")
    name = next((values[name] for name in NAMES if values.get(name) is not None), "")
    if isinstance(name, bool) or not isinstance(name, str | int):
        raise RecordError(f"id: must be a string or a whole number: not {name!r}")
    if str(name).encode("utf-8", "replace").decode() != str(name):
        raise RecordError(f"id: not Unicode text: {name!r}")
    title = values.get("title") if field == "text" else None
    if not isinstance(title, str | None):
        raise RecordError(f"title: must be a string: not {title!r}")
    return Row(_checked(str(name)), _checked(f"{title} {text}".strip() if title else text))


def _checked(text: str) -> str:
    if "\0" in text:
        raise RecordError("holds a NUL character: not a text, or not UTF-8")
    return text
