"""What is known of each task's data in training: manifests flow in, a remark for a task flows out.

A manifest is `clean.json` of `e5jax data clean`, which lists the evaluation texts that were looked
for and the records that were removed, or `manifest.json` of `e5jax data prepare`, which names the
public set that the records come from.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from e5jax.data.prepared import MANIFEST
from e5jax.datasets.cleaned import REPORT, read_report
from e5jax.errors import ConfigError
from e5jax.jsonl import read_object
from e5jax.report.results import Task

# By public set, the beginnings of the names of tasks whose training split it contains.
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


class Manifest(NamedTuple):
    """The content of one manifest."""

    set: str | None  # the public set
    checked: Mapping[str, Mapping[str, Any]]  # by task: texts, places, removed records


def read_manifests(folders: Iterable[Path]) -> list[Manifest]:
    """All manifests in these folders and below. Raises ConfigError for a folder without one."""
    return [manifest for folder in folders for manifest in _manifests_below(folder)]


def _manifests_below(folder: Path) -> Iterator[Manifest]:
    paths = sorted(path for name in (REPORT, MANIFEST) for path in folder.rglob(name))
    if not paths:
        raise ConfigError(
            f"--data={folder}: no {REPORT} and no {MANIFEST} in it; "
            "give what `e5jax data clean` or `prepare` wrote"
        )
    for path in paths:
        if path.name == REPORT:
            yield Manifest(None, read_report(path).get("evaluation", {}))
        else:
            yield Manifest(read_object(path).get("set"), {})


def training_data(name: str, task: Task, manifests: Sequence[Manifest]) -> str:
    """What the manifests say about this task, for the splits and subsets of its score."""
    bare = name.removeprefix("Nano")
    sets = sorted(
        {each.set for each in manifests if each.set and bare.startswith(_TASKS.get(each.set, ()))}
    )
    remarks = [f"trained on {', '.join(sets)}"] if sets else []
    if checked := [each.checked[name] for each in manifests if name in each.checked]:
        removed = sum(each["removed"] for each in checked)
        remarks.append(f"cleaned, {removed:,} records left out")
        scored = {f"{subset}/{split}" for split in task.splits for subset in task.subsets}
        missed = {
            place for each in checked if "places" in each for place in scored - set(each["places"])
        }
        remarks += [f"not checked for {', '.join(sorted(missed))}"] if missed else []
    return "; ".join(remarks) or "not checked"
