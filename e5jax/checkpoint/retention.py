"""A run's checkpoints on disk: which there are, which are sound, which stay. Knows folders and manifests, not what is in them.

checkpoints/300/            a step: `parameters/`, `rest/`, and the MANIFEST that makes it a checkpoint
checkpoints/quarantine/     what could not be trusted: 200/, and 200.txt with the reason
"""

import json
from pathlib import Path
from typing import NamedTuple

from e5jax.checkpoint.manifest import NAME, DamagedError, Manifest, check, read
from e5jax.errors import ConfigError
from e5jax.storage import DELETED, PARTS, delete, finished, move, steps

QUARANTINE = "quarantine"
WRITTEN = ".orbax-checkpoint-tmp"  # end of the name of a folder that Orbax is writing


class Retention(NamedTuple):
    """The newest `keep` checkpoints stay, and for good each whose step is a multiple of `forever`, if that is not 0."""

    keep: int
    forever: int = 0


class Sound(NamedTuple):
    """A checkpoint that is what was written."""

    step: int
    manifest: Manifest


def newest_sound(directory: Path) -> tuple[Sound | None, dict[int, str]]:
    """The newest checkpoint that is sound, and what is wrong with each newer one."""
    wrong: dict[int, str] = {}
    for step in reversed(steps(directory)):
        try:
            return Sound(step, check(directory / str(step))), wrong
        except DamagedError as error:
            wrong[step] = str(error)
    return None, wrong


def quarantine(directory: Path, step: int, reason: str) -> Path:
    """Moves a checkpoint out of the way, with the reason beside it."""
    place = directory / QUARANTINE
    place.mkdir(exist_ok=True)
    there = place.iterdir() if place.is_dir() else ()  # a bucket has no empty folders
    taken = sum(path.name.split("-")[0] == str(step) for path in there if path.is_dir())
    to = place / (f"{step}-{taken}" if taken else str(step))
    (place / f"{to.name}.txt").write_text(
        f"{reason}\n"
    )  # first: in a bucket it is what makes the folder
    move(directory / str(step), to, NAME)
    return to


def expire(directory: Path, retention: Retention) -> list[int]:
    """Deletes what need not stay; of checkpoints without a manifest it deletes none and counts none. Returns their steps."""
    old = [
        step
        for step in finished(directory)[: -retention.keep]
        if not (retention.forever and step % retention.forever == 0)
    ]
    for step in old:
        delete(directory / str(step), NAME)
    return old


def clear(directory: Path) -> None:
    """Deletes what killed processes left half written or half deleted, and nothing that is only named alike."""
    for path in directory.iterdir() if directory.is_dir() else ():
        step, _, end = path.name.partition(".")
        if not step.isdecimal() or not path.is_dir():
            continue
        if f".{end}" == WRITTEN or (f".{end}" == DELETED and _is_checkpoint(path)):
            delete(path, NAME)


def _is_checkpoint(folder: Path) -> bool:
    """Whether it is one, or what is left of one."""
    names = {path.name for path in folder.iterdir()}
    return not names or bool(names & PARTS)


# --- for people ------------------------------------------------------------------------------------------------


def listing(directory: Path, verify: bool) -> tuple[list[str], bool]:
    """A line a checkpoint, the oldest first, then one for each that was set aside; and whether all of the former are sound.

    Without `verify` no file but the manifests is read.
    """
    lines, sound = [], True
    for step in steps(directory):
        try:
            found = (
                check(directory / str(step), thorough=True)
                if verify
                else read(directory / str(step))
            )
            said = f"{found.bytes / 1e6:12,.1f} MB  {len(found.files):4} files  {'sound' if verify else ''}".rstrip()
        except DamagedError as error:
            said, sound = f"DAMAGED: {error}", False
        lines.append(f"{step:>9}  {said}")
    for path in sorted((directory / QUARANTINE).glob("*.txt")):
        lines.append(f"{path.stem:>9}  in {QUARANTINE}: {path.read_text(encoding='utf-8').strip()}")
    return lines, sound


def said_of(directory: Path, step: int | None) -> str:
    """What a checkpoint says of itself, as JSON: the newest if no step is named. Raises ConfigError."""
    there = steps(directory)
    if not there or step not in (None, *there):
        raise ConfigError(
            f"{directory}: no checkpoint {'' if step is None else step}; there are {there or 'none'}"
        )
    try:
        found = read(directory / str(there[-1] if step is None else step))
    except DamagedError as error:
        raise ConfigError(f"{directory}/{there[-1] if step is None else step}: {error}") from error
    return json.dumps(
        {**found.facts, "bytes": found.bytes, "files": len(found.files)},
        indent=2,
        ensure_ascii=False,
    )
