"""The checkpoint folders of a run: which exist, which are sound, which are deleted.

checkpoints/300/            a step: `parameters/`, `rest/`, and the MANIFEST, written last
checkpoints/quarantine/     damaged checkpoints: 200/, and 200.txt with the reason
"""

import json
from pathlib import Path
from typing import NamedTuple

from e5jax.checkpoint.manifest import NAME, DamagedError, Manifest, check, read
from e5jax.errors import ConfigError
from e5jax.storage import DELETED, PARTS, delete, finished, move, steps

QUARANTINE = "quarantine"
WRITTEN = ".orbax-checkpoint-tmp"  # suffix of a folder that Orbax is writing


class Retention(NamedTuple):
    """Keeps the newest `keep` checkpoints, and steps that are multiples of `forever` (0: none)."""

    keep: int
    forever: int = 0


class Sound(NamedTuple):
    """A checkpoint that matches its manifest."""

    step: int
    manifest: Manifest


def newest_sound(directory: Path) -> tuple[Sound | None, dict[int, str]]:
    """Returns the newest sound checkpoint, and the reason why each newer one is not."""
    wrong: dict[int, str] = {}
    for step in reversed(steps(directory)):
        try:
            return Sound(step, check(directory / str(step))), wrong
        except DamagedError as error:
            wrong[step] = str(error)
    return None, wrong


def quarantine(directory: Path, step: int, reason: str) -> Path:
    """Moves a checkpoint to the quarantine and writes the reason beside it."""
    folder = directory / QUARANTINE
    folder.mkdir(exist_ok=True)
    others = folder.iterdir() if folder.is_dir() else ()  # a bucket has no empty folders
    count = sum(path.name.split("-")[0] == str(step) for path in others if path.is_dir())
    to = folder / (f"{step}-{count}" if count else str(step))
    # The reason first: in a bucket this file creates the folder.
    (folder / f"{to.name}.txt").write_text(f"{reason}\n")
    move(directory / str(step), to, NAME)
    return to


def expire(directory: Path, retention: Retention) -> list[int]:
    """Deletes old checkpoints and returns their steps. Ignores folders without a manifest."""
    old = [
        step
        for step in finished(directory)[: -retention.keep]
        if not (retention.forever and step % retention.forever == 0)
    ]
    for step in old:
        delete(directory / str(step), NAME)
    return old


def clear(directory: Path) -> None:
    """Deletes checkpoints that killed processes left half written or half deleted.

    Folders that merely have such a name stay.
    """
    for path in directory.iterdir() if directory.is_dir() else ():
        step, _, end = path.name.partition(".")
        if not step.isdecimal() or not path.is_dir():
            continue
        if f".{end}" == WRITTEN or (f".{end}" == DELETED and _is_checkpoint(path)):
            delete(path, NAME)


def _is_checkpoint(folder: Path) -> bool:
    """Whether this is a checkpoint or the rest of one."""
    names = {path.name for path in folder.iterdir()}
    return not names or bool(names & PARTS)


# --- `e5jax checkpoints` -------------------------------------------------------------------------


def listing(directory: Path, verify: bool) -> tuple[list[str], bool]:
    """Returns a line per checkpoint, oldest first, then the quarantine; and whether all are sound.

    Without `verify` only the manifests are read.
    """
    lines, sound = [], True
    for step in steps(directory):
        folder = directory / str(step)
        try:
            manifest = check(folder, thorough=True) if verify else read(folder)
            size, count = f"{manifest.bytes / 1e6:12,.1f} MB", f"{len(manifest.files):4} files"
            text = f"{size}  {count}  {'sound' if verify else ''}".rstrip()
        except DamagedError as error:
            text, sound = f"DAMAGED: {error}", False
        lines.append(f"{step:>9}  {text}")
    for path in sorted((directory / QUARANTINE).glob("*.txt")):
        lines.append(f"{path.stem:>9}  in {QUARANTINE}: {path.read_text(encoding='utf-8').strip()}")
    return lines, sound


def describe(directory: Path, step: int | None) -> str:
    """Returns the facts of a checkpoint as JSON; `step` None: the newest. Raises ConfigError."""
    existing = steps(directory)
    if not existing or step not in (None, *existing):
        name = "" if step is None else step
        raise ConfigError(f"{directory}: no checkpoint {name}; there are {existing or 'none'}")
    folder = directory / str(existing[-1] if step is None else step)
    try:
        manifest = read(folder)
    except DamagedError as error:
        raise ConfigError(f"{folder}: {error}") from error
    facts = {**manifest.facts, "bytes": manifest.bytes, "files": len(manifest.files)}
    return json.dumps(facts, indent=2, ensure_ascii=False)
