"""Copies a run's directory to or from a bucket: `python -m launch.launcher.mirror push|pull`.

Checkpoints are saved to the bucket directly. The bucket's list of files is written last, and only
listed files count, so that an incomplete copy is ignored. It needs gcsfs, so it is a process of its
own with the run's interpreter.
"""

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

LIST = "mirror.json"
PUSHED = Path("launch") / "pushed.json"
EXCLUDED = ("checkpoints", ".lock", ".phase", ".log", PUSHED.name)  # folders and suffixes


def push(local: Path, bucket: str) -> None:
    """Uploads all files that have changed since the last call."""
    store = _store()
    before = (
        json.loads((local / PUSHED).read_text(encoding="utf-8"))
        if (local / PUSHED).exists()
        else {}
    )
    now = {
        name: [(local / name).stat().st_size, (local / name).stat().st_mtime_ns]
        for name in _names(local)
    }
    if now == before:
        return
    for name in sorted(now):
        if now[name] != before.get(name):
            store.put_file(str(local / name), f"{bucket}/{name}")
    store.pipe_file(
        f"{bucket}/{LIST}", json.dumps({name: size for name, (size, _) in now.items()}).encode()
    )
    (local / PUSHED).parent.mkdir(parents=True, exist_ok=True)
    (local / PUSHED).write_text(json.dumps(now), encoding="utf-8")


def pull(local: Path, bucket: str, mark: str = "config.json") -> None:
    """Downloads all files, unless the directory already has the run."""
    store = _store()
    if (local / mark).exists() or not store.exists(f"{bucket}/{LIST}"):
        return
    for name in json.loads(store.cat_file(f"{bucket}/{LIST}")):
        if ".." in Path(name).parts or Path(name).is_absolute():
            raise ValueError(f"{bucket}/{LIST}: {name!r} is outside of the run's directory")
        (local / name).parent.mkdir(parents=True, exist_ok=True)
        store.get_file(f"{bucket}/{name}", str(local / name))


def _names(local: Path) -> Iterator[str]:
    for folder, inner, files in os.walk(local):
        inner[:] = [name for name in inner if not name.startswith(".") and name not in EXCLUDED]
        chosen = [
            name for name in files if not name.startswith(".") and not name.endswith(EXCLUDED)
        ]
        yield from (str((Path(folder) / name).relative_to(local)) for name in chosen)


def _store():
    import fsspec  # noqa: PLC0415  installed only on the machines of a run

    return fsspec.filesystem("gs", use_listings_cache=False)


if __name__ == "__main__":
    {"push": push, "pull": pull}[sys.argv[1]](Path(sys.argv[2]), sys.argv[3].rstrip("/"))
