"""The paths of a run's artifacts, and atomic writing: an artifact that exists is complete.

Every writer fills a temporary file or folder beside its target and renames it into place.
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
ALLOW = "; --allow-change resumes with the new one and records the change"


class Workdir(NamedTuple):
    """Paths in the directory of a run."""

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
        """The default; the configuration may name another folder."""
        return self.root / "checkpoints"

    def checkpoints_of(self, checkpoint: Checkpoint) -> Path:
        """The folder of the checkpoints, on disk or in a bucket."""
        return folder_of(checkpoint.folder or str(self.checkpoints))

    @property
    def profile(self) -> Path:
        return self.root / "profile"

    @property
    def trained(self) -> Path:
        """Written when training is complete: what was trained, and on which data and base."""
        return self.root / "train.json"

    @property
    def lengths(self) -> Path:
        """Written when training is complete: numbers of tokens of a sample of its texts."""
        return self.root / "lengths.json"

    @property
    def identity(self) -> Path:
        """The name of the run, by which its checkpoint folder knows it."""
        return self.root / "run.json"

    @property
    def earlier(self) -> Path:
        """Results of the run before it was extended, by number of steps."""
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
        """The run that trains the base of this run."""
        return Workdir(self.root / "pretrain")


@contextlib.contextmanager
def atomic_output(path: Path, command: str | None = None) -> Iterator[Path]:
    """Yields a temporary path beside `path`, not yet created; on success renames it to `path`.

    With `command`, replaces only what the same command wrote (see `outputs`). Without, `path` must
    be in a folder that belongs to the caller. Deletes what killed writers of `path` left behind.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _clear_leftovers(path)
    holder = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    try:
        with lock.in_use(_mark(holder, path)):
            try:
                yield holder / path.name
                _put(holder, path, command)
            finally:  # before the mark of this writer goes
                for rest in (holder / path.name, _replaced(holder, path)):
                    _delete(rest)
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
    assert new.exists(), "the writer wrote nothing"  # else the old one would be lost
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
    """Deletes temporary folders of dead writers of `path`.

    Moves a folder back that a writer had moved away and not yet replaced.
    """
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
    """Writes a text file atomically; see `atomic_output`."""
    with atomic_output(path, command) as temporary:
        temporary.write_text(text, encoding="utf-8")


@contextlib.contextmanager
def writing(
    command: str, *paths: Path, folder: bool = False, inputs: Iterable[Path] = (), own: bool = False
) -> Iterator[None]:
    """Inside, this process has the sole right to write these files (with `folder`: folders).

    Raises ConfigError before the work begins if an output was not written by the same command
    (unless `own`), contains an input, or if another process is writing it.
    """
    checked = () if own else paths
    for path in checked:
        _check_inputs(path, inputs)
        outputs.check(path, command, folder=folder)
    first = paths[0]
    file = first.with_name(f".{first.name}.lock")
    with (
        _parents(first.parent),
        lock.hold(file, f"--output={first}", "choose another --output"),
    ):
        for path in checked:  # again: another process may just have finished
            outputs.check(path, command, folder=folder)
        yield


@contextlib.contextmanager
def _parents(folder: Path) -> Iterator[None]:
    """Creates a folder and its parents, and afterwards deletes those that are still empty."""
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
    for source in inputs:
        real = Path(os.path.realpath(source))
        if real.is_relative_to(output):
            what = "it" if real == output else f"{source}, which is in it"
            raise ConfigError(
                f"--output={path}: this command reads {what}; choose another --output"
            )


def read_config(workdir: Workdir) -> Config:
    """Reads the configuration of a run. Raises ConfigError if there is none."""
    if not workdir.config.is_file():
        raise ConfigError(
            f"--workdir={workdir.root}: no config.json there; it is not the directory of a run"
        )
    return from_json(workdir.config.read_bytes())
