"""Files of a set from the Hugging Face hub, for `e5jax data prepare --from hub`."""

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

from e5jax.data.compressed import bare_name
from e5jax.datasets.public_sets import Set
from e5jax.errors import ConfigError


class Downloaded(NamedTuple):
    """What to read, and of which commits it is."""

    sources: list[Path]
    revisions: list[str]  # owner/name@commit


@contextlib.contextmanager
def from_hub(chosen: Set) -> Iterator[Downloaded]:
    """Downloads what is not in the cache of the hub; the files are named as there, below folders of their data sets."""
    if not chosen.hub:
        raise ConfigError(
            f"{chosen.name}: is not on the hub as its publisher wrote it; download {', '.join(chosen.files)} and give --from FILES"
        )
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        snapshots = {repository: _snapshot(chosen, repository) for repository, _ in chosen.hub}
        links: dict[Path, None] = {}
        for repository, pattern in chosen.hub:
            found = sorted(snapshots[repository].glob(pattern))
            if not found:
                raise ConfigError(
                    f"{repository}: has no {pattern}; download the files of {chosen.title} and give --from FILES"
                )
            for file in found:
                link = (
                    root / repository.rpartition("/")[2] / file.relative_to(snapshots[repository])
                )
                link.parent.mkdir(parents=True, exist_ok=True)
                link.symlink_to(file.resolve())
                links[link] = None
        yield Downloaded(
            _sources(list(links), root),
            [f"{repository}@{path.name}" for repository, path in snapshots.items()],
        )


def _snapshot(chosen: Set, repository: str) -> Path:
    wanted = [pattern for owner, pattern in chosen.hub if owner == repository]
    try:
        return Path(snapshot_download(repository, repo_type="dataset", allow_patterns=wanted))
    except (HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled, OSError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(
            f"{repository}: not to be had from the hub ({reason}); download the files and give --from FILES"
        ) from error


def _sources(files: list[Path], root: Path) -> list[Path]:
    """Files of one name are read each by itself; those of different names belong together, in one folder."""
    if len({bare_name(file) for file in files}) == 1:
        return files
    parents = {file.parent for file in files}
    return [parents.pop() if len(parents) == 1 else root]
