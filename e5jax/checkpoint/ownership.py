"""A checkpoint folder, on disk or in a bucket, belongs to the run that its `run.json` names.

The run's own directory has a `run.json` with the same name, so the run is recognised wherever its
directory is moved. A new directory on another machine counts as the same run if the end of its path
and its training configuration are the same, as after the loss of a disk.
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
# Fields that do not change the numbers of a training.
IGNORED = (
    *("mesh", "checkpoint", "log", "profile", "probe"),
    *("export", "stages", "eval", "pretrain", "watchdog"),
)


class Owner(NamedTuple):
    """The run that a folder belongs to."""

    run: str
    path: str  # the last two parts of its directory
    directory: str
    host: str
    since: str
    training: str  # hash of the configuration that determines its numbers


@contextlib.contextmanager
def owned(folder: Path, workdir: Workdir, run: Training) -> Iterator[None]:
    """Claims the folder for this run and locks it. Raises ConfigError if it belongs to another run,
    or contains folders that look like checkpoints and are not.

    The lock keeps out a second process with a copy of the run's directory; a bucket has no lock.
    """
    if in_bucket(folder):
        claim(folder)  # first, since its message is best if the bucket cannot be written
    owner = check(folder, workdir, run)
    if owner is None:
        _check_unowned(folder, workdir)
    for step in steps(folder):
        if not any((folder / str(step) / part).exists() for part in PARTS):
            raise ConfigError(
                f"config.checkpoint.folder={folder}: {step} in it is no checkpoint of e5jax, "
                "but named like one; move it away"
            )
    guard: contextlib.AbstractContextManager = contextlib.nullcontext()
    if not in_bucket(folder):
        claim(folder)
        guard = lock.hold(folder / ".lock", f"{folder}", "choose another folder")
    with guard:
        own = _owner(workdir, run, owner.run if owner else _name(workdir) or secrets.token_hex(8))
        if _name(workdir) != own.run:
            write_text(workdir.identity, json.dumps({"run": own.run}) + "\n")
        if owner is None or owner.training != own.training:
            (folder / FILE).write_text(json.dumps(own._asdict(), indent=2) + "\n")
            check(folder, workdir, run)  # in a bucket another run may have claimed it meanwhile
        yield


def check(folder: Path, workdir: Workdir, run: Training) -> Owner | None:
    """Returns the owner of the folder, if any. Raises ConfigError if that is another run."""
    owner = _read(folder)
    if owner is None or owner.run == _name(workdir):
        return owner
    own = _owner(workdir, run, "")
    if not workdir.metrics.exists() and (owner.path, owner.training) == (own.path, own.training):
        return owner
    raise ConfigError(
        f"config.checkpoint.folder={folder}: has the checkpoints of another run, that of "
        f"{owner.directory} on {owner.host}, since {owner.since}; give this run a folder of its own"
    )


def _read(folder: Path) -> Owner | None:
    try:
        return Owner(**parse_object((folder / FILE).read_bytes()))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (RecordError, TypeError) as error:
        raise ConfigError(
            f"{folder / FILE}: names no run ({error}); bring the file back, "
            "or choose another folder"
        ) from error


def _check_unowned(folder: Path, workdir: Workdir) -> None:
    """Raises ConfigError for checkpoints without an owner, unless they are in the run's directory.

    They are of an earlier version, which wrote no `run.json`.
    """
    if not in_bucket(folder) and folder.is_relative_to(workdir.root.absolute()):
        return
    if existing := steps(folder):
        raise ConfigError(
            f"config.checkpoint.folder={folder}: holds {existing[-1]}, and no {FILE} that says "
            "of which run; move it away, or choose another folder"
        )


def _name(workdir: Workdir) -> str:
    """The name of the run; empty for a new one."""
    try:
        return str(parse_object(workdir.identity.read_bytes())["run"])
    except FileNotFoundError:
        return ""
    except (RecordError, KeyError) as error:
        raise ConfigError(
            f"{workdir.identity}: names no run ({error}); bring the file back"
        ) from error


def _owner(workdir: Workdir, run: Training, name: str) -> Owner:
    fields = {field: value for field, value in asdict(run).items() if field not in IGNORED}
    del fields["data"]["workers"]
    training = hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()
    root = workdir.root.absolute()
    since = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
    return Owner(name, "/".join(root.parts[-2:]), str(root), socket.gethostname(), since, training)
