"""What is known of each task's data in training: manifests of training data flow in, a flag for each task flows out.

A manifest is `clean.json` of `e5jax data clean`, which says what was looked for and removed, or `manifest.json` of `e5jax data
prepare`, which says of which public set the records are.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from e5jax.data.prepared import MANIFEST
from e5jax.datasets.cleaned import REPORT, read_report
from e5jax.errors import ConfigError
from e5jax.eval.scope import TaskScope

# Beginnings of the names of tasks whose data set the public set of training data belongs to, by its training split.
_TASKS = {
    "hotpotqa": ("HotpotQA",),
    "fever": ("FEVER",),
    "miracl": ("MIRACL",),
    "msmarco_passage": ("MSMARCO", "MMarco"),
    "msmarco_document": ("MSMARCO",),
    "nq": ("NQ",),
    "squad": ("XQuAD", "MLQA"),
    "quora": ("Quora",),
    "mrtydi": ("MrTidy",),
    "dureader": ("DuRetrieval",),
    "t2ranking": ("T2Retrieval", "T2Reranking"),
}
UNKNOWN = "unknown"


class Manifest(NamedTuple):
    """What one folder of training data says."""

    path: Path
    set: str | None  # the public set that it is
    checked: Mapping[
        str, Mapping[str, Any]
    ]  # by task: its texts that were looked for, from where, and the records that held one


def read_manifests(folders: Iterable[Path]) -> list[Manifest]:
    """All manifests in these folders and below. Raises ConfigError for a folder without one."""
    return [manifest for folder in folders for manifest in _below(folder)]


def _below(folder: Path) -> Iterator[Manifest]:
    paths = sorted(path for name in (REPORT, MANIFEST) for path in folder.rglob(name))
    if not paths:
        raise ConfigError(
            f"--data={folder}: no {REPORT} and no {MANIFEST} in it; give what `e5jax data clean` or `prepare` wrote"
        )
    for path in paths:
        if path.name == REPORT:
            yield Manifest(path, None, read_report(path).get("evaluation", {}))
        else:
            yield Manifest(path, json.loads(path.read_text(encoding="utf-8"))["set"], {})


def flag(task: str, scope: TaskScope, manifests: Iterable[Manifest]) -> str:
    """What is known of this task, on the splits and subsets that its score is of."""
    manifests = list(manifests)
    bare = task.removeprefix("Nano")
    sets = sorted(
        {one.set for one in manifests if one.set and bare.startswith(_TASKS.get(one.set, ()))}
    )
    checked = [one.checked[task] for one in manifests if task in one.checked]
    said = [f"trained on {', '.join(sets)}"] if sets else []
    scored = {f"{subset}/{split}" for split in scope.splits for subset in scope.subsets}
    lost = sorted(
        {place for one in checked if "places" in one for place in scored.difference(one["places"])}
    )
    if checked:
        said.append(f"cleaned, {sum(one['removed'] for one in checked):,} records left out")
        said += [f"not checked for {', '.join(lost)}"] if lost else []
    return "; ".join(said) or (UNKNOWN if not manifests else "not checked")
