"""Where a run keeps its artifacts, and the rule that an artifact that exists is complete.

Every writer fills a temporary neighbour and renames it into place, so existence is the mark of completeness.
"""

import contextlib
import glob
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from e5jax.config import Checkpoint, Config
from e5jax.config.serialize import from_json
from e5jax.errors import ConfigError, name_path
from e5jax.storage import folder_of
from e5jax.workdir import lock, outputs

DEFAULT_RUNS = Path("runs")
ALLOW = "; --allow-change goes on with what is there now, and records the difference"


class Workdir(NamedTuple):
    """Paths below one run's directory."""

    root: Path

    @property
    def config(self) -> Path:
        return self.root / "config.json"

    @property
    def changes(self) -> Path:
        """Changes that were accepted with --allow-change."""
        return self.root / "changes.jsonl"

    @property
    def versions(self) -> Path:
        return self.root / "versions.json"

    @property
    def data(self) -> Path:
        """`train.jsonl`, `tokenizer.json` and the `heldout/` retrieval task."""
        return self.root / "data"

    @property
    def metrics(self) -> Path:
        return self.root / "metrics.jsonl"

    @property
    def skipped(self) -> Path:
        """Batches of steps that made no update."""
        return self.root / "skipped"

    @property
    def checkpoints(self) -> Path:
        """Unless the configuration names another place."""
        return self.root / "checkpoints"

    def checkpoints_of(self, checkpoint: Checkpoint) -> Path:
        """Where a run's checkpoints are, a bucket perhaps."""
        return folder_of(checkpoint.folder or str(self.checkpoints))

    @property
    def profile(self) -> Path:
        return self.root / "profile"

    @property
    def trained(self) -> Path:
        """Written when training is complete: what was trained, on what."""
        return self.root / "train.json"

    @property
    def lengths(self) -> Path:
        """Written when training is complete: tokens of a sample of its texts."""
        return self.root / "lengths.json"

    @property
    def identity(self) -> Path:
        """The name by which the run's checkpoints know it, wherever this directory is moved to."""
        return self.root / "run.json"

    @property
    def earlier(self) -> Path:
        """What the run came to before it was extended, by its steps then."""
        return self.root / "earlier"

    @property
    def export(self) -> Path:
        return self.root / "export"

    @property
    def results(self) -> Path:
        return self.root / "results.json"

    @property
    def report(self) -> Path:
        return self.root / "report.html"

    @property
    def pretrain(self) -> "Workdir":
        """The run that makes this run's base."""
        return Workdir(self.root / "pretrain")


@contextlib.contextmanager
def atomic_output(path: Path, command: str | None = None) -> Iterator[Path]:
    """Yields a temporary path beside `path` (not created); on success renames it to `path`.

    With `command` it replaces only what the same command wrote (`written`); without, `path` is in a folder that the writer knows to
    be its own. What a killed writer of `path` left is deleted first.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _clear_leftovers(path)
    holder = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    try:
        with lock.in_use(_mark(holder, path)):
            try:
                yield holder / path.name
                _put(holder, path, command)
            finally:  # while the mark says whose they are
                for place in (holder / path.name, _replaced(holder, path)):
                    _delete(place)
    except OSError as error:
        name_path(error, path)
        raise
    finally:
        shutil.rmtree(holder)


def _delete(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _put(holder: Path, path: Path, command: str | None) -> None:
    new = holder / path.name
    assert new.exists(), "the writer made something"  # else the old one would be lost
    if command is not None:
        outputs.check(path, command, folder=new.is_dir())
        if new.is_dir():
            outputs.note_folder(new, command)
        else:
            outputs.note_file(new, path, command)
    if path.is_dir():
        os.rename(path, _replaced(holder, path))
    os.replace(new, path)


def _clear_leftovers(path: Path) -> None:
    """Deletes temporary folders of writers of `path` that are dead; an old folder that one had just moved away comes back."""
    for holder in path.parent.glob(f".{glob.escape(path.name)}.*/"):
        if lock.is_abandoned(_mark(holder, path)):
            if _replaced(holder, path).exists() and not path.exists():
                os.rename(_replaced(holder, path), path)
            shutil.rmtree(holder)


def _mark(holder: Path, path: Path) -> Path:
    return holder / f"{path.name}.writer"


def _replaced(holder: Path, path: Path) -> Path:
    return holder / f"{path.name}.replaced"


def write_text(path: Path, text: str, command: str | None = None) -> None:
    """Writes a file whole or not at all, over another one as `atomic_output` does."""
    with atomic_output(path, command) as temporary:
        temporary.write_text(text, encoding="utf-8")


@contextlib.contextmanager
def writing(
    command: str, *paths: Path, folder: bool = False, inputs: Iterable[Path] = (), own: bool = False
) -> Iterator[None]:
    """Inside, this process alone writes these files, or with `folder` folders, and may do so: with `own` whatever is there.

    Raises ConfigError, before the work begins: for what the command did not write, for an input, and for a process at work there.
    """
    checked = () if own else paths
    for path in checked:
        _check_inputs(path, inputs)
        outputs.check(path, command, folder=folder)
    first = paths[0]
    with (
        _made(first.parent),
        lock.hold(
            first.with_name(f".{first.name}.lock"), f"--output={first}", "choose another --output"
        ),
    ):
        for path in checked:  # another process may have ended just now
            outputs.check(path, command, folder=folder)
        yield


@contextlib.contextmanager
def _made(folder: Path) -> Iterator[None]:
    """Makes a folder and its parents; those that stay empty go again."""
    new = [part for part in (folder, *folder.parents) if not part.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield
    finally:
        for part in new:
            if any(part.iterdir()):
                break
            part.rmdir()


def _check_inputs(path: Path, inputs: Iterable[Path]) -> None:
    output = Path(os.path.realpath(path))
    for place in inputs:
        real = Path(os.path.realpath(place))
        if real.is_relative_to(output):
            inside = (
                "this command reads it"
                if real == output
                else f"this command reads {place}, which is in it"
            )
            raise ConfigError(f"--output={path}: {inside}; choose another --output")


def read_config(workdir: Workdir) -> Config:
    """The configuration of the run in this directory."""
    if not workdir.config.is_file():
        raise ConfigError(
            f"--workdir={workdir.root}: no config.json there; it is not the directory of a run"
        )
    return from_json(workdir.config.read_bytes())
