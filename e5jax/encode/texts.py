"""The texts of a file, one after the other: JSONL, lines or Parquet, the first two perhaps in .gz or .zst."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from e5jax.data.compressed import bare_name
from e5jax.data.readers.lines import lines
from e5jax.data.readers.outcome import LIMITS, Rejected
from e5jax.errors import ConfigError, RecordError
from e5jax.jsonl import parse_object

NAMES = ("id", "_id")  # of a row, by preference


class Row(NamedTuple):
    """A text with its name, empty where the file gives none."""

    id: str
    text: str


class Texts:
    """The rows of a file, read anew each time that they are iterated over.

    A line of text is a row, blank or not. JSONL and Parquet have the text in `field`, behind a `title` where there is
    one and `field` is `text`, as in BEIR. Raises ConfigError `file:line: reason`, for any row, when it is made.
    """

    def __init__(self, path: Path, field: str = "text"):
        if not path.is_file():
            raise ConfigError(f"--input={path}: there is no such file")
        self._path, self._field = path, field
        self._kind = Path(bare_name(path)).suffix
        digest, self.named, self.count = hashlib.sha256(), True, 0
        for row in self:
            digest.update(f"{len(row.text)} {row.text}".encode("utf-8", "surrogatepass"))
            self.named &= bool(row.id)
            self.count += 1
        if not self.count:
            raise ConfigError(f"--input={path}: no texts in it")
        self.fingerprint = digest.hexdigest()

    def __iter__(self) -> Iterator[Row]:
        if self._kind == ".parquet":
            yield from self._columns()
            return
        for line in lines(self._path, LIMITS, blank=True):
            if isinstance(line, Rejected):
                raise ConfigError(str(line))
            if self._kind != ".jsonl":
                yield Row("", line.text)
                continue
            try:
                yield self._row(parse_object(line.text))
            except RecordError as error:
                raise ConfigError(f"{self._path}:{line.number}: {error}") from error

    def _columns(self) -> Iterator[Row]:
        from e5jax.encode.parquet import records  # noqa: PLC0415  who has text files needs no Arrow

        for number, record in enumerate(records(self._path, (*NAMES, "title", self._field)), start=1):
            try:
                yield self._row(record)
            except RecordError as error:
                raise ConfigError(f"{self._path}:{number}: {error}") from error

    def _row(self, values: dict[str, Any]) -> Row:
        text = values.get(self._field)
        if not isinstance(text, str):
            raise RecordError(f"no string `{self._field}`; --field names the one that is to be encoded")
        name = next((str(values[name]) for name in NAMES if values.get(name) is not None), "")
        title = values.get("title") if self._field == "text" else None
        return Row(name, f"{title} {text}".strip() if isinstance(title, str) and title else text)
