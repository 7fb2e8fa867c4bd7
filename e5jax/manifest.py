"""What a folder of files must be, bit for bit: SHA-256 of every file, written last, checked before the folder is trusted.

Neither Orbax nor safetensors notices a flipped bit in the numbers it reads. A folder flows in, its `Manifest` and whatever is
wrong with the folder flow out.
"""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from e5jax.errors import RecordError
from e5jax.jsonl import parse_object

NAME = "MANIFEST"
FORMAT = 1
THREADS = 4  # hashing gives Python's lock back


class Entry(NamedTuple):
    """One file."""

    bytes: int
    sha256: str


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
    with ThreadPoolExecutor(THREADS) as pool:
        made = Manifest(dict(zip(paths, pool.map(lambda path: _hash(folder / path, sync=True), paths), strict=True)), dict(facts))
    body = json.dumps({"format": FORMAT, **made._asdict()}, ensure_ascii=False, allow_nan=False)
    temporary = folder / f".{NAME}"
    with temporary.open("w", encoding="utf-8", newline="\n") as file:
        file.write(f"{body}\n{_digest(body)}\n")
        file.flush()
        os.fsync(file.fileno())
    for inner in [*(path for path in folder.rglob("*") if path.is_dir()), folder]:
        _sync_folder(inner)
    temporary.replace(folder / NAME)
    _sync_folder(folder)
    _sync_folder(folder.parent)
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
        if values["format"] != FORMAT:
            raise DamagedError(f"{NAME}: format {values['format']!r}; this e5jax reads {FORMAT}")
        return Manifest({path: Entry(*entry) for path, entry in values["files"].items()}, dict(values["facts"]))
    except (ValueError, LookupError, TypeError, AttributeError, RecordError) as error:
        raise DamagedError(f"{NAME}: cannot be read ({error})") from error


def check(folder: Path) -> Manifest:
    """The manifest of a folder whose files are all there, unchanged, and no others. Raises DamagedError."""
    wanted = read(folder)
    there = set(_files(folder))
    for problem, paths in (("is missing", wanted.files.keys() - there), ("does not belong there", there - wanted.files.keys())):
        if paths:
            raise DamagedError(f"{min(paths)}: {problem}")
    with ThreadPoolExecutor(THREADS) as pool:
        found = pool.map(lambda path: _hash(folder / path, sync=False), wanted.files)
        for (path, entry), other in zip(wanted.files.items(), found, strict=True):
            if entry.bytes != other.bytes:
                raise DamagedError(f"{path}: {other.bytes:,} bytes, and {entry.bytes:,} were written")
            if entry.sha256 != other.sha256:
                raise DamagedError(f"{path}: its contents have changed since it was written")
    return wanted


def _files(folder: Path) -> Iterator[str]:
    """Paths of all files, with slashes. A link is listed as it is: nothing outside the folder is ever hashed."""
    for path in folder.rglob("*"):
        relative = path.relative_to(folder).as_posix()
        if path.is_symlink() or (not path.is_dir() and relative not in (NAME, f".{NAME}")):
            yield relative


def _hash(path: Path, *, sync: bool) -> Entry:
    if path.is_symlink() or not path.is_file():
        return Entry(0, "not a plain file")
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        if sync:
            os.fsync(file.fileno())
        return Entry(file.tell(), digest)


def _digest(body: str) -> str:
    return hashlib.sha256(body.encode("utf-8")).hexdigest()


def _sync_folder(folder: Path) -> None:
    """A name is on the disk only when its folder is."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
