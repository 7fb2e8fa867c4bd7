"""What a folder of files must be, bit for bit: checksums of every file, written last, checked before the folder is trusted.

Neither Orbax nor safetensors notices a flipped bit in the numbers it reads. A folder flows in, its `Manifest` and whatever is
wrong with the folder flow out. XXH3-128 finds what happens to files by accident, at the speed of memory, and is what a restore
waits for; SHA-256 is for whoever gets them from somebody else.
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
OLD = 2  # has SHA-256 alone


class Manifest(NamedTuple):
    """The files of a folder by their path in it, and what is said of the whole."""

    files: dict[str, Entry]
    facts: dict[str, Any]

    @property
    def bytes(self) -> int:
        """Of all files."""
        return sum(entry.bytes for entry in self.files.values())


class DamagedError(Exception):
    """A folder is not what its manifest says, or has none. Says which file, and why."""


def write(folder: Path, facts: Mapping[str, Any]) -> Manifest:
    """Hashes every file, sends all to the disk, and puts the manifest beside them, whole or not at all."""
    paths = sorted(_files(folder))
    made = Manifest(
        dict(zip(paths, entries(folder, paths, list(SUMS), sync=True), strict=True)), dict(facts)
    )
    body = json.dumps({"format": FORMAT, **made._asdict()}, ensure_ascii=False, allow_nan=False)
    publish(folder, NAME, f"{body}\n{_digest(body)}\n")
    return made


def read(folder: Path) -> Manifest:
    """The manifest, without a look at the files. Raises DamagedError."""
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
    """The manifest of a folder whose files are all there, unchanged, and no others. Raises DamagedError.

    Compares XXH3-128, or SHA-256 if that is asked for or all there is.
    """
    wanted = read(folder)
    there = _files(folder)
    for problem, paths in (
        ("is missing", wanted.files.keys() - there),
        ("does not belong there", there - wanted.files.keys()),
    ):
        if paths:
            raise DamagedError(f"{min(paths)}: {problem}")
    by = (
        FAST
        if not thorough and all(FAST in entry.sums for entry in wanted.files.values())
        else SAFE
    )
    for (path, written), other in zip(
        wanted.files.items(), entries(folder, list(wanted.files), [by], sync=False), strict=True
    ):
        if written.bytes != other.bytes:
            raise DamagedError(f"{path}: {other.bytes:,} bytes, and {written.bytes:,} were written")
        if written.sums.get(by) != other.sums[by]:
            raise DamagedError(f"{path}: its contents have changed since it was written")
    return wanted


def _files(folder: Path) -> set[str]:
    """Paths of all files but the manifest."""
    return set(files(folder)) - {NAME, f".{NAME}"}


def _entry(count: int, sums: str | dict[str, str]) -> Entry:
    return Entry(count, {SAFE: sums} if isinstance(sums, str) else dict(sums))


def _digest(body: str) -> str:
    return hashlib.sha256(body.encode("utf-8")).hexdigest()
