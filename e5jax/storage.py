"""Folders of checkpoints, on a disk or in a bucket (`gs://…`, `s3://…`), and what is done differently there.

A bucket has no rename and no fsync, and needs neither: an object is there whole or not at all, and stays.
"""

import hashlib
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import xxhash

from e5jax.errors import ConfigError

if TYPE_CHECKING:
    from etils import epath


class Bucket(NamedTuple):
    """What reads a kind of bucket: a package, the extra of setup.py that brings it, fsspec's name for it, and what it may raise."""

    package: str
    extra: str
    protocol: str
    errors: tuple[str, ...]  # beside OSError


BUCKETS = {
    "gs://": Bucket(
        "gcsfs",
        "gcs",
        "gcs",
        ("gcsfs.retry:HttpError", "google.auth.exceptions:GoogleAuthError", "aiohttp:ClientError"),
    ),
    "s3://": Bucket(
        "s3fs", "s3", "s3", ("botocore.exceptions:BotoCoreError", "botocore.exceptions:ClientError")
    ),
}
PROBE = ".e5jax"  # is written into a bucket, and deleted again
MANIFEST = "MANIFEST"  # what makes a numbered folder a checkpoint
PARTS = {
    MANIFEST,
    f".{MANIFEST}",
    "parameters",
    "rest",
    "_CHECKPOINT_METADATA",
    "commit_success.txt",
}  # of a checkpoint
DELETED = ".deleted"  # end of the name of a folder that is being deleted

SAFE, FAST = "sha256", "xxh3_128"
SUMS: Mapping[str, Callable[..., Any]] = {
    SAFE: hashlib.sha256,
    FAST: xxhash.xxh3_128,
}  # against anybody; against accidents
BLOCK = 2**19  # bytes that are read at once, and are still in a core's cache when they are hashed
PIECE = 2**25  # bytes of one task: enough tasks for many cores, in one large file too
THREADS = min(32, os.cpu_count() or 1)  # hashing gives Python's lock back


class Entry(NamedTuple):
    """One file, and checksums of its bytes by name: each of them all, or of one piece's checksum after the other beyond `PIECE`."""

    bytes: int
    sums: dict[str, str]


def folder_of(where: str) -> Path:
    """A folder by its path or address. Raises ConfigError when what reads buckets is not installed."""
    bucket = _bucket(where)
    if bucket is None:
        return Path(where).absolute()
    if find_spec(bucket.package) is None:
        raise ConfigError(
            f"{where}: needs the package {bucket.package}: pip install 'e5jax[{bucket.extra}]'"
        )
    import fsspec.config  # noqa: PLC0415  only who has a bucket has them
    from etils import epath  # noqa: PLC0415  beside it

    # TensorStore writes there too: what was seen a moment ago says nothing.
    fsspec.config.conf.setdefault(bucket.protocol, {})["use_listings_cache"] = False
    return cast(Path, epath.Path(where))  # it has the methods of a path


def in_bucket(path: Path) -> bool:
    """Whether it is not on a disk."""
    return _bucket(os.fspath(path)) is not None


def _bucket(where: str) -> Bucket | None:
    return next((bucket for kind, bucket in BUCKETS.items() if where.startswith(kind)), None)


def claim(folder: Path) -> None:
    """Makes a folder that will be written to; in a bucket, which has none, sees that one may write. Raises ConfigError."""
    bucket = _bucket(os.fspath(folder))
    if bucket is None:
        folder.mkdir(parents=True, exist_ok=True)
        return
    known = (
        getattr(import_module(module), name)
        for module, name in (error.split(":") for error in bucket.errors)
    )
    try:
        (folder / PROBE).write_bytes(b"")
        (folder / PROBE).unlink()
    except (OSError, *known) as error:
        raise ConfigError(
            f"{folder}: cannot be written to ({type(error).__name__}: {error}); is there such a bucket, and may you write there?"
        ) from error


def steps(folder: Path) -> list[int]:
    """Numbers of all checkpoints in a folder, sound or not, the oldest first."""
    if not folder.is_dir():
        return []
    return sorted(
        int(path.name) for path in folder.iterdir() if path.name.isdecimal() and path.is_dir()
    )


def finished(folder: Path) -> list[int]:
    """Those that were written to the end."""
    return [step for step in steps(folder) if (folder / str(step) / MANIFEST).is_file()]


def files(folder: Path) -> Iterator[str]:
    """Paths of all files below, with slashes. A link is listed as it is: nothing outside the folder is ever read."""
    for path in folder.iterdir():
        link = not in_bucket(path) and path.is_symlink()
        if path.is_dir() and not link:
            yield from (f"{path.name}/{inner}" for inner in files(path))
        else:
            yield path.name


def entries(folder: Path, paths: Sequence[str], sums: Sequence[str], *, sync: bool) -> list[Entry]:
    """Reads files with all cores, in pieces, for these of `SUMS`; with `sync` sends each to the disk as well."""
    with ThreadPoolExecutor(THREADS) as pool:
        sizes = list(pool.map(lambda path: _size(folder / path), paths))
        pieces = [
            [(path, start) for start in range(0, max(size, 1), PIECE)]
            for path, size in zip(paths, sizes, strict=True)
        ]
        read = pool.map(
            lambda piece: _piece(folder / piece[0], piece[1], sums, sync),
            chain.from_iterable(pieces),
        )
        return [
            _join(sums, [next(read) for _ in own], size)
            for own, size in zip(pieces, sizes, strict=True)
        ]


def _join(sums: Sequence[str], found: list[tuple[int, list[bytes]]], size: int) -> Entry:
    if size < 0:
        return Entry(0, dict.fromkeys(sums, "not a plain file"))
    parts = zip(*(digests for _, digests in found), strict=True)
    whole = {name: _whole(name, part) for name, part in zip(sums, parts, strict=True)}
    return Entry(sum(count for count, _ in found), whole)


def _whole(name: str, parts: Sequence[bytes]) -> str:
    return (parts[0] if len(parts) == 1 else SUMS[name](b"".join(parts)).digest()).hex()


def _size(path: Path) -> int:
    """Bytes of a file, below 0 for what is none."""
    if in_bucket(path):
        return cast("epath.Path", path).stat().length
    return path.stat().st_size if path.is_file() and not path.is_symlink() else -1


def _piece(path: Path, start: int, sums: Sequence[str], sync: bool) -> tuple[int, list[bytes]]:
    """Bytes and checksums of a part of a file."""
    hashes = [SUMS[name]() for name in sums]
    if not in_bucket(path) and (path.is_symlink() or not path.is_file()):
        return 0, [made.digest() for made in hashes]
    view, count = memoryview(bytearray(BLOCK)), 0
    with path.open("rb") as file:
        if sync and not in_bucket(path) and start == 0:
            os.fsync(file.fileno())
        file.seek(start)
        while got := file.readinto(view[: PIECE - count]):
            for made in hashes:
                made.update(view[:got])
            count += got
    return count, [made.digest() for made in hashes]


def publish(folder: Path, name: str, text: str) -> None:
    """Puts a file into a folder, whole or not at all, after all that is there already."""
    if in_bucket(folder):
        (folder / name).write_text(text)
        return
    temporary = folder / f".{name}"
    with temporary.open("w", encoding="utf-8", newline="\n") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    for inner in [*(path for path in folder.rglob("*") if path.is_dir()), folder]:
        _sync(inner)
    temporary.replace(folder / name)
    _sync(folder)
    _sync(folder.parent)


def move(folder: Path, to: Path, mark: str) -> None:
    """Gives a folder another name: in a bucket, which has no rename, copies all and deletes as `delete` does."""
    if not in_bucket(folder):
        folder.rename(to)
        return
    from fsspec.core import url_to_fs  # noqa: PLC0415  only who has a bucket has it

    names = list(files(folder))
    store, _ = url_to_fs(os.fspath(folder))
    store.copy([f"{folder}/{name}" for name in names], [f"{to}/{name}" for name in names])
    delete(folder, mark)


def delete(folder: Path, mark: str) -> None:
    """Deletes a folder; half of it does not look like a damaged one: on a disk it has another name, in a bucket no `mark`."""
    if in_bucket(folder):
        (folder / mark).unlink(missing_ok=True)
        cast("epath.Path", folder).rmtree()
        return
    if not folder.name.endswith(DELETED):
        folder = folder.rename(folder.with_name(f"{folder.name}{DELETED}"))
    shutil.rmtree(folder)


def _sync(folder: Path) -> None:
    """A name is on the disk only when its folder is."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
