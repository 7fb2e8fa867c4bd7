"""Bytes of a file, gzip and Zstandard undone, with caps against files that are small on disk only."""

import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import zstandard

from e5jax.data.readers.outcome import Limits
from e5jax.errors import ConfigError

BROKEN = (EOFError, zlib.error, zstandard.ZstdError)  # what `chunks` raises for damaged data
SUFFIXES = (".gz", ".zst")

_PLAIN = 1 << 20
_FREE = 1 << 20  # decompressed bytes before the ratio counts: small files may repeat themselves


class _Engine(NamedTuple):
    """What undoes a compression."""

    magic: bytes  # first bytes; no UTF-8 text begins like this
    make: Callable[[], Any]
    size: int  # bytes given at once


# Formats that expand a thousandfold and thirty-thousandfold then give no more than some tens of MB before the caps are looked at.
_ENGINES = (
    _Engine(b"\x1f\x8b", lambda: zlib.decompressobj(wbits=31), 16 << 10),
    _Engine(b"\x28\xb5\x2f\xfd", lambda: zstandard.ZstdDecompressor().decompressobj(), 1 << 10),
)


def chunks(path: Path, limits: Limits) -> Iterator[bytes]:
    """The file's content, some MB at most at a time. Raises ConfigError over a cap, one of BROKEN for damaged data."""
    try:
        with path.open("rb") as raw:
            engine = _engine(raw)
            yield from iter(lambda: raw.read(_PLAIN), b"") if engine is None else _capped(raw, engine, path, limits)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error


def is_compressed(path: Path) -> bool:
    """Whether `chunks` undoes a compression."""
    with path.open("rb") as raw:
        return _engine(raw) is not None


def bare_name(path: Path) -> str:
    """The file's name without .gz or .zst."""
    return path.name.removesuffix(path.suffix) if path.suffix in SUFFIXES else path.name


def _engine(raw: BinaryIO) -> _Engine | None:
    head = raw.read(4)
    raw.seek(0)
    return next((engine for engine in _ENGINES if head.startswith(engine.magic)), None)


def _capped(raw: BinaryIO, engine: _Engine, path: Path, limits: Limits) -> Iterator[bytes]:
    total = 0
    for piece in _decompressed(raw, engine):
        total += len(piece)
        if total > limits.total_bytes:
            raise ConfigError(f"{path}: more than {limits.total_bytes:,} bytes when decompressed; raise total_bytes to read it")
        if total > _FREE and total > limits.ratio * raw.tell():
            raise ConfigError(
                f"{path}: {total:,} bytes from {raw.tell():,} compressed ones, more than ratio={limits.ratio:g}; "
                "if it is no bomb, raise ratio"
            )
        yield piece


def _decompressed(raw: BinaryIO, engine: _Engine) -> Iterator[bytes]:
    """One stream behind the other, as `cat a.gz b.gz` makes them."""
    stream = None
    while chunk := raw.read(engine.size):
        while chunk:
            stream = stream or engine.make()
            yield stream.decompress(chunk)
            chunk = stream.unused_data if stream.eof else b""
            stream = None if stream.eof else stream
    if stream:
        raise EOFError("it ends too early")
