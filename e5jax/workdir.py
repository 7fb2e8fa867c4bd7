"""Where a run keeps its artifacts, and the rule that an artifact that exists is complete.

Every writer fills a temporary neighbour and renames it into place, so existence is the mark of completeness.
"""

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from e5jax.config import Checkpoint, Config
from e5jax.errors import ConfigError, name_path
from e5jax.snapshot import differences, from_json, to_json
from e5jax.storage import folder_of

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
        """What was another when the run went on, because somebody allowed it."""
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
def complete(path: Path) -> Iterator[Path]:
    """Yields a temporary path beside `path` (not created); on success renames it to `path`, replacing what was there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    holder = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    try:
        yield holder / path.name
        assert (holder / path.name).exists(), "the writer made something"  # else the old one would be lost
        if path.is_dir():
            os.rename(path, holder / f"{path.name}.replaced")
        os.replace(holder / path.name, path)
    except OSError as error:
        name_path(error, path)
        raise
    finally:
        shutil.rmtree(holder)


def write_text(path: Path, text: str) -> None:
    """Writes a file whole or not at all."""
    with complete(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def claim(workdir: Workdir, config: Config, allow: bool = False) -> None:
    """Writes config.json, or refuses a directory that holds a run of another configuration, naming the differences.

    Where `allow` lets it go on all the same, the differences are recorded and config.json is the new one.
    """
    if not workdir.config.exists():
        write_text(workdir.config, to_json(config))
        return
    # None of these changes what is trained on what, a mesh the last bits alone; all are mostly wanted once a run is under way.
    free = (".profile.", ".probe.", ".data.workers", ".watchdog.", ".mesh.", ".checkpoint.seconds")
    found = differences(read_config(workdir), config)
    changed = [line for line in found if not any(part in line.split(": ")[0] for part in free)]
    if changed and not allow:
        raise ConfigError(
            f"--workdir={workdir.root} holds a run with another configuration ({'; '.join(changed)}); "
            f"choose another --workdir, or repeat the first configuration to resume{ALLOW}"
        )
    if changed:
        record(workdir, changed)
        if pretrain := [line for line in changed if line.startswith("config.pretrain.")]:
            record(workdir.pretrain, pretrain)
        write_text(workdir.config, to_json(config))


def record(workdir: Workdir, changed: Sequence[str], **where: int) -> None:
    """Notes what is another from now on, and says so."""
    line = {"when": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}", **where, "changed": list(changed)}
    before = workdir.changes.read_text(encoding="utf-8") if workdir.changes.exists() else ""
    write_text(workdir.changes, f"{before}{json.dumps(line)}\n")
    print(f"allowed, and recorded in {workdir.changes}: {'; '.join(changed)}", flush=True)


def changes(workdir: Workdir) -> list[dict[str, Any]]:
    """All that was recorded, the first one first."""
    lines = workdir.changes.read_text(encoding="utf-8").splitlines() if workdir.changes.exists() else ()
    return [json.loads(line) for line in lines]


def read_config(workdir: Workdir) -> Config:
    """The configuration of the run in this directory."""
    if not workdir.config.is_file():
        raise ConfigError(f"--workdir={workdir.root}: no config.json there; it is not the directory of a run")
    return from_json(workdir.config.read_bytes())
