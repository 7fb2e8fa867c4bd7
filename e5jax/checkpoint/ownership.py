"""A folder of checkpoints belongs to one run, which `run.json` in it names, on a disk or in a bucket.

The run has a `run.json` with the same name in its own directory, and so is known wherever that is moved. A new directory on another
machine is taken for the same run if its path ends alike and its training is configured alike: as after the loss of a disk.
"""

import contextlib
import hashlib
import json
import secrets
import socket
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from e5jax.config import Training
from e5jax.errors import ConfigError, RecordError
from e5jax.jsonl import parse_object
from e5jax.storage import PARTS, claim, in_bucket, steps
from e5jax.workdir import lock
from e5jax.workdir.directory import Workdir, write_text

FILE = "run.json"
LATER = (
    "mesh",
    "checkpoint",
    "log",
    "profile",
    "probe",
    "export",
    "stages",
    "eval",
    "pretrain",
    "watchdog",
)


class Owner(NamedTuple):
    """A run."""

    run: str
    path: str  # the last names of its directory's path
    directory: str
    host: str
    since: str
    training: str  # a hash of what decides its numbers


@contextlib.contextmanager
def owned(folder: Path, workdir: Workdir, run: Training) -> Iterator[None]:
    """Makes the folder this run's, if it is nobody's. Raises ConfigError if it is another run's, or holds what none has written.

    Inside, no other process does so: two copies of a run's directory are one run. A bucket has no such lock.
    """
    if in_bucket(folder):
        claim(folder)  # first, as it says best what is wrong with a bucket
    owner = check(folder, workdir, run)
    if owner is None:
        _check_unowned(folder, workdir)
    foreign = [
        str(step)
        for step in steps(folder)
        if not any((folder / str(step) / part).exists() for part in PARTS)
    ]
    if foreign:
        raise ConfigError(
            f"config.checkpoint.folder={folder}: {foreign[0]} in it is no checkpoint of e5jax, but named like one; move it away"
        )
    if not in_bucket(folder):
        claim(folder)
    with (
        contextlib.nullcontext()
        if in_bucket(folder)
        else lock.hold(folder / ".lock", f"{folder}", "choose another folder")
    ):
        own = _owner(workdir, run, owner.run if owner else _name(workdir) or secrets.token_hex(8))
        if _name(workdir) != own.run:
            write_text(workdir.identity, json.dumps({"run": own.run}) + "\n")
        if owner is None or owner.training != own.training:
            (folder / FILE).write_text(json.dumps(own._asdict(), indent=2) + "\n")
            check(folder, workdir, run)  # in a bucket another run may have come at the same time
        yield


def check(folder: Path, workdir: Workdir, run: Training) -> Owner | None:
    """Whose folder it is. Raises ConfigError if it is not this run's."""
    owner = _read(folder)
    if owner is None or owner.run == _name(workdir):
        return owner
    own = _owner(workdir, run, "")
    if not workdir.metrics.exists() and (owner.path, owner.training) == (own.path, own.training):
        return owner
    raise ConfigError(
        f"config.checkpoint.folder={folder}: has the checkpoints of another run, that of {owner.directory} on {owner.host}, "
        f"since {owner.since}; give this run a folder of its own"
    )


def _read(folder: Path) -> Owner | None:
    try:
        return Owner(**parse_object((folder / FILE).read_bytes()))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (RecordError, TypeError) as error:
        raise ConfigError(
            f"{folder / FILE}: names no run ({error}); bring the file back, or choose another folder"
        ) from error


def _check_unowned(folder: Path, workdir: Workdir) -> None:
    """Checkpoints that name no run are of an earlier version: known to be this run's only in the run's own directory."""
    if not in_bucket(folder) and folder.is_relative_to(workdir.root.absolute()):
        return
    if there := steps(folder):
        raise ConfigError(
            f"config.checkpoint.folder={folder}: holds {there[-1]}, and no {FILE} that says of which run; "
            "move it away, or choose another folder"
        )


def _name(workdir: Workdir) -> str:
    """The run's name, empty for a new one."""
    try:
        return str(parse_object(workdir.identity.read_bytes())["run"])
    except FileNotFoundError:
        return ""
    except (RecordError, KeyError) as error:
        raise ConfigError(
            f"{workdir.identity}: names no run ({error}); bring the file back"
        ) from error


def _owner(workdir: Workdir, run: Training, name: str) -> Owner:
    fields = {field: value for field, value in asdict(run).items() if field not in LATER}
    del fields["data"]["workers"]
    training = hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()
    root = workdir.root.absolute()
    since = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
    return Owner(name, "/".join(root.parts[-2:]), str(root), socket.gethostname(), since, training)
