"""Lines of a file as text, and what a format makes of each: a bad line is a rejection, never the end of the file."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from e5jax.data.readers.compressed import BROKEN, bare_name, chunks
from e5jax.data.readers.outcome import Limits, Options, Outcome, Rejected
from e5jax.errors import ConfigError, RecordError
from e5jax.records import Example, check_example


class Line(NamedTuple):
    """A line without its end."""

    number: int  # from 1
    start: int  # its first byte, after decompression
    text: str


def files(path: Path, *suffixes: str) -> list[Path]:
    """The file itself, or the files below a folder whose names end so (and then perhaps in .gz or .zst), sorted."""
    if path.is_file():
        return [path]
    found = [file for file in sorted(path.rglob("*")) if file.is_file() and bare_name(file).endswith(suffixes)]
    if not found:
        raise ConfigError(f"{path}: no such file, or a folder without {' or '.join('*' + suffix for suffix in suffixes)} files")
    return found


def examples(path: Path, options: Options, make: Callable[[Line, str], Example]) -> Iterator[Outcome]:
    """What `make` gives for each line and the name of its set, checked; a RecordError becomes a rejection."""
    source = options.source or name_of(path)
    for line in lines(path, options.limits):
        if isinstance(line, Rejected):
            yield line
            continue
        try:
            yield check_example(make(line, source))
        except RecordError as error:
            yield Rejected(str(path), line.number, str(error))


def name_of(path: Path) -> str:
    """The name of a set: that of its file without suffixes."""
    return bare_name(path).partition(".")[0] or path.name


def lines(path: Path, limits: Limits, blank: bool = False) -> Iterator[Line | Rejected]:
    """The lines of a file, decompressed, blank ones if wanted; damage rejects the line it begins in and all after it."""
    return decoded(chunks(path, limits), str(path), limits, blank)


def decoded(pieces: Iterable[bytes], file: str, limits: Limits, blank: bool = False) -> Iterator[Line | Rejected]:
    """`lines` of bytes that are at hand."""
    number = 0
    try:
        for number, (start, raw) in enumerate(_split(pieces, limits.line_bytes), 1):
            if raw is None:
                yield Rejected(file, number, f"line too long: more than {limits.line_bytes:,} bytes")
            elif blank or raw.strip():
                yield _decode(raw, file, number, start)
    except BROKEN as error:
        yield Rejected(file, number + 1, f"compressed data is damaged: {error}; nothing after this was read")


def _decode(raw: bytes, file: str, number: int, start: int) -> Line | Rejected:
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        return Rejected(file, number, f"not UTF-8: {error.reason} at byte {error.start}")
    return Line(number, start, text.removesuffix("\r").removeprefix("\ufeff" if start == 0 else ""))


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
