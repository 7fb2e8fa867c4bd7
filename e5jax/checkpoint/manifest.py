"""Checksums of every file in a folder: written last, verified before the folder is trusted.

Neither Orbax nor safetensors notices a flipped bit. A restore verifies XXH3-128, which detects
accidental damage at the speed of memory; SHA-256 is also stored, for folders received from others.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from e5jax.errors import RecordError
from e5jax.jsonl import parse_object
from e5jax.storage import FAST, MANIFEST, SAFE, SUMS, Entry, entries, files, publish

NAME = MANIFEST
FORMAT = 3
OLD = 2  # has SHA-256 only


class Manifest(NamedTuple):
    """The files of a folder by relative path, and facts about the whole."""

    files: dict[str, Entry]
    facts: dict[str, Any]

    @property
    def bytes(self) -> int:
        """Total size of all files."""
        return sum(entry.bytes for entry in self.files.values())


class DamagedError(Exception):
    """A folder does not match its manifest, or has none. Names the file and the reason."""


def write(folder: Path, facts: Mapping[str, Any]) -> Manifest:
    """Hashes every file, syncs them to disk, and writes the manifest atomically."""
    paths = sorted(_files(folder))
    sums = entries(folder, paths, list(SUMS), sync=True)
    manifest = Manifest(dict(zip(paths, sums, strict=True)), dict(facts))
    values = {"format": FORMAT, **manifest._asdict()}
    body = json.dumps(values, ensure_ascii=False, allow_nan=False)
    publish(folder, NAME, f"{body}\n{_digest(body)}\n")
    return manifest


def read(folder: Path) -> Manifest:
    """Reads the manifest and verifies its own checksum, but no file. Raises DamagedError."""
    try:
        lines = (folder / NAME).read_bytes().split(b"\n")
    except FileNotFoundError as error:
        raise DamagedError(f"no {NAME}: it was not finished") from error
    try:
        body, digest, rest = lines
        if rest or digest.decode("ascii") != _digest(body.decode("utf-8")):
            raise DamagedError(f"{NAME}: its own checksum does not fit")
        values = parse_object(body)
        if values["format"] not in (OLD, FORMAT):
            raise DamagedError(
                f"{NAME}: format {values['format']!r}; this e5jax reads {OLD} and {FORMAT}"
            )
        return Manifest(
            {path: _entry(*entry) for path, entry in values["files"].items()}, dict(values["facts"])
        )
    except (ValueError, LookupError, TypeError, AttributeError, RecordError) as error:
        raise DamagedError(f"{NAME}: cannot be read ({error})") from error


def check(folder: Path, *, thorough: bool = False) -> Manifest:
    """Verifies that a folder has exactly the files of its manifest, unchanged.

    Compares XXH3-128, or SHA-256 if `thorough` or if there is no other. Returns the manifest;
    raises DamagedError.
    """
    manifest, present = read(folder), _files(folder)
    written = manifest.files
    if missing := written.keys() - present:
        raise DamagedError(f"{min(missing)}: is missing")
    if extra := present - written.keys():
        raise DamagedError(f"{min(extra)}: does not belong there")
    fast = not thorough and all(FAST in entry.sums for entry in written.values())
    kind = FAST if fast else SAFE
    current = entries(folder, list(written), [kind], sync=False)
    for (path, old), new in zip(written.items(), current, strict=True):
        if old.bytes != new.bytes:
            raise DamagedError(f"{path}: {new.bytes:,} bytes, and {old.bytes:,} were written")
        if old.sums.get(kind) != new.sums[kind]:
            raise DamagedError(f"{path}: its contents have changed since it was written")
    return manifest


def _files(folder: Path) -> set[str]:
    """Relative paths of all files except the manifest."""
    return set(files(folder)) - {NAME, f".{NAME}"}


def _entry(count: int, sums: str | dict[str, str]) -> Entry:
    return Entry(count, {SAFE: sums} if isinstance(sums, str) else dict(sums))


def _digest(body: str) -> str:
    return hashlib.sha256(body.encode("utf-8")).hexdigest()
