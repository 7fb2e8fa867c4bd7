"""Bytes of a file, decompressed if need be, with caps against files that are small on disk only."""

import bz2
import lzma
import re
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import zstandard

from e5jax.errors import ConfigError

SUFFIXES = (".gz", ".zst", ".bz2", ".xz")

_PLAIN = 1 << 20
_FREE = 1 << 20  # decompressed bytes before the ratio counts: small files may repeat themselves
_MAGIC = 10  # bytes that tell a compression
_ERRORS = (
    EOFError,
    OSError,
    ValueError,
    zlib.error,
    lzma.LZMAError,
    zstandard.ZstdError,
)  # bz2 raises the first three


class Limits(NamedTuple):
    """What a file may ask of this machine."""

    line_bytes: int = 16 << 20  # of one line, or of one element of a JSON array
    ratio: float = 200.0  # decompressed to compressed bytes, after the first MiB; text has 3 to 10, repeated lines 100
    total_bytes: int = 256 << 30  # decompressed bytes of a file


LIMITS = Limits()


class DamagedError(ValueError):
    """Compressed data cannot be decompressed beyond this point."""


class _Engine(NamedTuple):
    """What undoes a compression."""

    magic: re.Pattern[bytes]  # first bytes; no text begins like this
    make: Callable[[], Any]
    size: int  # bytes given at once


# Formats that expand a thousandfold and thirty-thousandfold then give no more than some tens of MB before the caps are looked at.
_ENGINES = (
    _Engine(re.compile(rb"\x1f\x8b"), lambda: zlib.decompressobj(wbits=31), 16 << 10),
    _Engine(
        re.compile(rb"\x28\xb5\x2f\xfd"),
        lambda: zstandard.ZstdDecompressor().decompressobj(),
        1 << 10,
    ),
    _Engine(re.compile(rb"BZh[1-9](1AY&SY|\x17rE8P\x90)"), bz2.BZ2Decompressor, 1 << 10),
    _Engine(re.compile(rb"\xfd7zXZ\0"), lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ), 1 << 10),
)


def chunks(path: Path, limits: Limits) -> Iterator[bytes]:
    """The file's content, some MB at most at a time. Raises ConfigError over a cap, DamagedError for damaged data."""
    try:
        with path.open("rb") as raw:
            engine = _engine(raw)
            yield from (
                iter(lambda: raw.read(_PLAIN), b"")
                if engine is None
                else _capped(raw, engine, path, limits)
            )
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error


def is_compressed(path: Path) -> bool:
    """Whether `chunks` undoes a compression."""
    try:
        with path.open("rb") as raw:
            return _engine(raw) is not None
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error


def bare_name(path: Path) -> str:
    """The file's name without the suffix of a compression."""
    return path.name.removesuffix(path.suffix) if path.suffix.lower() in SUFFIXES else path.name


def _engine(raw: BinaryIO) -> _Engine | None:
    head = raw.read(_MAGIC)
    raw.seek(0)
    return next((engine for engine in _ENGINES if engine.magic.match(head)), None)


def _capped(raw: BinaryIO, engine: _Engine, path: Path, limits: Limits) -> Iterator[bytes]:
    total = 0
    for piece in _decompressed(raw, engine):
        total += len(piece)
        if total > limits.total_bytes:
            raise ConfigError(
                f"{path}: more than {limits.total_bytes:,} bytes when decompressed; raise total_bytes to read it"
            )
        if total > _FREE and total > limits.ratio * raw.tell():
            raise ConfigError(
                f"{path}: {total:,} bytes from {raw.tell():,} compressed ones, more than ratio={limits.ratio:g}; "
                "if it is no bomb, raise ratio, or decompress the file first"
            )
        yield piece


def _decompressed(raw: BinaryIO, engine: _Engine) -> Iterator[bytes]:
    """One stream behind the other, as `cat a.gz b.gz` makes them, zeros between and behind them left out."""
    stream = None
    while chunk := raw.read(engine.size):
        while chunk := chunk if stream else chunk.lstrip(b"\0"):
            stream = stream or engine.make()
            try:
                piece = stream.decompress(chunk)
            except _ERRORS as error:
                raise DamagedError(str(error)) from error
            yield piece
            chunk = stream.unused_data if stream.eof else b""
            stream = None if stream.eof else stream
    if stream:
        raise DamagedError("it ends too early")
