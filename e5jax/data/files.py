"""What a data file is, and its lines: the one place that decides how files of texts and records are read.

The name says what a file is, and its first bytes must agree. A name without a known suffix is no reason to guess: only JSON
objects and Parquet are recognised without one. Everything else is refused.
"""

import os
import re
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

from e5jax.data.compressed import (
    LIMITS,
    SUFFIXES,
    DamagedError,
    Limits,
    bare_name,
    chunks,
    is_compressed,
)
from e5jax.errors import ConfigError, RecordError
from e5jax.jsonl import parse_object, parse_value

Kind = Literal["jsonl", "array", "csv", "tsv", "text", "parquet"]

JSONL = (".jsonl", ".ndjson")
KINDS: dict[str, Kind] = {
    **dict.fromkeys((*JSONL, ".json"), "jsonl"),
    ".csv": "csv",
    ".tsv": "tsv",
    ".txt": "text",
    ".parquet": "parquet",
}
READ = (
    "JSON lines (.jsonl, .ndjson, .json), CSV and TSV with a header (.csv, .tsv), lines of text (.txt), Parquet (.parquet); "
    f"all but Parquet perhaps with {', '.join(SUFFIXES)}"
)

_BOM = "\ufeff"
_HEAD = 1 << 16  # bytes
_PARQUET = b"PAR1"
_UTF16_AND_32 = (b"\xff\xfe", b"\xfe\xff", b"\0\0\xfe\xff")
_OBJECT = re.compile(rb'\{\s*["}]')
_ARRAY = re.compile(rb'\[\s*(\{\s*["}]|"|\[)')


class Line(NamedTuple):
    """A line without its end."""

    number: int  # from 1
    start: int  # its first byte, after decompression
    text: str


class Rejected(NamedTuple):
    """A line, or a row, that gave no example. The reason up to its first colon is one of a few; details follow."""

    file: str
    line: int  # from 1
    reason: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.reason}"

    @property
    def kind(self) -> str:
        """The reason without its details, for counting."""
        return self.reason.partition(":")[0]


def kind_of(path: Path) -> Kind:
    """What the file holds. Raises ConfigError where the name does not say it, or says something else than the content."""
    suffix, head = Path(bare_name(path)).suffix.lower(), _head(path)
    kind = KINDS.get(suffix)
    content = _content(head)
    if head.startswith(_UTF16_AND_32):
        raise ConfigError(
            f"{path}:1: not UTF-8: UTF-16 or UTF-32; `iconv -f UTF-16 -t UTF-8` makes it UTF-8"
        )
    if content == "parquet" and is_compressed(path):
        raise ConfigError(f"{path}: a compressed Parquet file; decompress it first")
    if kind is None:
        if content in ("jsonl", "parquet"):
            return content
        raise ConfigError(
            f"{path}: the suffix {suffix!r} does not say what is in it; these are read: {READ}"
        )
    if (kind == "parquet") != (content == "parquet") or (
        content in ("jsonl", "array") and kind in ("csv", "tsv", "text")
    ):
        actual = {"parquet": "a Parquet file", "jsonl": "JSON lines", "array": "a JSON array"}.get(
            content or "", "no Parquet file"
        )
        raise ConfigError(
            f"{path}: its name ends in {suffix}, but it is {actual}; rename it; these are read: {READ}"
        )
    return "array" if suffix == ".json" and _text(head).startswith(b"[") else kind


def check_records(path: Path) -> None:
    """Raises ConfigError for a file that holds no JSON lines, the form of training records."""
    if not _head(path).strip():
        return  # an empty file has no wrong content; that nothing is in it is for others to say
    kind = kind_of(path)
    if kind != "jsonl":
        name = {"array": "a JSON array", "text": "lines of text", "parquet": "Parquet"}.get(
            kind, kind.upper()
        )
        raise ConfigError(
            f"{path}: is {name}, and training records are JSON lines: "
            f"`e5jax data convert --input={path} --output=FILE.jsonl` writes them"
        )


def lines(path: Path, limits: Limits = LIMITS, blank: bool = False) -> Iterator[Line | Rejected]:
    """The lines of a file, decompressed, blank ones if wanted; damage rejects the line it begins in and all after it."""
    return decoded(chunks(path, limits), str(path), limits, blank)


def objects(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Line and content of each JSON object of a file that has one a line. Raises ConfigError `file:line: reason`."""
    for line in lines(path):
        if isinstance(line, Rejected):
            raise ConfigError(str(line))
        try:
            yield line.number, parse_object(line.text)
        except RecordError as error:
            raise ConfigError(f"{path}:{line.number}: {error}") from error


def decoded(
    pieces: Iterable[bytes], file: str, limits: Limits, blank: bool = False
) -> Iterator[Line | Rejected]:
    """`lines` of bytes that are at hand."""
    number = 0
    try:
        for number, (start, raw) in enumerate(_split(pieces, limits.line_bytes), 1):
            if raw is None:
                yield Rejected(
                    file, number, f"line too long: more than {limits.line_bytes:,} bytes"
                )
            else:
                line = _decode(raw, file, number, start)
                if blank or isinstance(line, Rejected) or line.text.strip(" \t\n\r\v\f"):
                    yield line
    except DamagedError as error:
        yield Rejected(
            file, number + 1, f"compressed data is damaged: {error}; nothing after this was read"
        )


def temporary_copy(pieces: Iterable[bytes], of: Path) -> int:
    """Descriptor of a temporary file with this content; it has no name, and is gone once nobody has it open."""
    try:
        with tempfile.TemporaryFile() as file:
            file.writelines(pieces)
            file.flush()
            return os.dup(file.fileno())
    except OSError as error:
        where = f"{of}: cannot be copied to {tempfile.gettempdir()}: {error.strerror}"
        raise ConfigError(
            f"{where}; set TMPDIR to a folder with room for all of it, decompressed"
        ) from error


def _decode(raw: bytes, file: str, number: int, start: int) -> Line | Rejected:
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        return Rejected(file, number, f"not UTF-8: {error.reason} at byte {error.start}")
    return Line(number, start, text.removesuffix("\r").removeprefix(_BOM if start == 0 else ""))


def _split(pieces: Iterable[bytes], limit: int) -> Iterator[tuple[int, bytes | None]]:
    """First byte and content of each line; None for one longer than `limit`, which is never held whole."""
    start, held, dropped = 0, b"", 0
    for piece in pieces:
        *whole, tail = piece.split(b"\n")
        for part in whole:
            line = held + part
            yield start, None if dropped or len(line) > limit else line
            start += dropped + len(line) + 1
            held, dropped = b"", 0
        held += tail
        if len(held) > limit:
            held, dropped = b"", dropped + len(held)
    if held or dropped:
        yield start, None if dropped else held


def _head(path: Path) -> bytes:
    """The first bytes after decompression, as far as they are not damaged."""
    held = b""
    try:
        for piece in chunks(path, LIMITS):
            held += piece
            if len(held) >= _HEAD:
                break
    except DamagedError:
        pass  # readers name the line where it begins
    return held[:_HEAD]


def _text(head: bytes) -> bytes:
    return head.removeprefix(_BOM.encode()).lstrip()


def _content(head: bytes) -> Kind | None:
    """What the first bytes can only be; None: something else."""
    if head.startswith(_PARQUET):
        return "parquet"
    text = _text(head)
    if _ARRAY.match(text):
        return "array"
    if not _OBJECT.match(text):
        return None
    line, end, _ = text.partition(b"\n")
    try:
        return (
            "jsonl"
            if (not end and len(head) == _HEAD) or isinstance(parse_value(line), dict)
            else None
        )
    except RecordError:
        return None
