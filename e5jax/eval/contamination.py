"""Evaluation texts in training data: those to remove, and what is known about each task.

`write_texts` writes the texts that the evaluation of a task gives a model, as JSONL: `id` (such as
`NFCorpus/default/test/query/12`), `kind` and `text`, each text of a task once. `e5jax data clean`
removes them from training data.

`training_data` says what manifests record about a task: `clean.json` of `e5jax data clean` lists
the evaluation texts that were looked for and the records that were removed; `manifest.json` of
`e5jax data prepare` names the public set that the records come from.
"""

import hashlib
import json
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from mteb.abstasks.abstask import AbsTask
from mteb.abstasks.task_metadata import TaskMetadata
from mteb.models.abs_encoder import AbsEncoder
from mteb.types import BatchedInput, PromptType
from torch.utils.data import DataLoader

from e5jax.data.prepared import MANIFEST
from e5jax.datasets.cleaned import REPORT, read_report
from e5jax.errors import ConfigError
from e5jax.eval.encoder import model_meta
from e5jax.eval.evaluate import evaluate
from e5jax.jsonl import read_object
from e5jax.report.results import Task
from e5jax.workdir.directory import atomic_output

TEXTS = "texts.jsonl"
_DIMENSIONS = 8  # of random vectors, whose scores are discarded
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


class Recorder(AbsEncoder):
    """An mteb EncoderProtocol that calls `record(task, place, kind, text)` for each text."""

    def __init__(self, record: Callable[[str, str, str, str], object]) -> None:
        self.mteb_model_meta = model_meta("recorder", instructions=False)
        self._record = record
        self._random = np.random.default_rng(0)

    def encode(
        self,
        inputs: DataLoader[BatchedInput],
        *,
        task_metadata: TaskMetadata,
        hf_split: str,
        hf_subset: str,
        prompt_type: PromptType | None = None,
        **_: Any,
    ) -> Float[np.ndarray, "b d"]:
        """Records every text of the loader, queries without an instruction of the task.

        Texts of other splits, which train a classifier, are not recorded.
        """
        kind = prompt_type.value if prompt_type else "text"
        count = 0
        for batch in inputs:
            texts = batch.get("query", batch["text"])
            count += len(texts)
            for text in texts if hf_split in task_metadata.eval_splits else ():
                self._record(task_metadata.name, f"{hf_subset}/{hf_split}", kind, text)
        return self._random.standard_normal((count, _DIMENSIONS), np.float32)


def write_texts(tasks: Sequence[AbsTask], output: Path) -> Counter[str]:
    """Writes the texts of all tasks to `output` atomically and returns their number by task."""
    seen: set[bytes] = set()
    counts: Counter[str] = Counter()
    with (
        atomic_output(output, "eval") as temporary,
        temporary.open("w", encoding="utf-8", newline="\n") as file,
    ):

        def record(task: str, place: str, kind: str, text: str) -> None:
            digest = hashlib.blake2b(
                f"{task}/{text}".encode("utf-8", "surrogatepass"), digest_size=16
            ).digest()
            if digest not in seen:
                seen.add(digest)
                counts[task] += 1
                line = {"id": f"{task}/{place}/{kind}/{counts[task]}", "kind": kind, "text": text}
                file.write(json.dumps(line, ensure_ascii=False) + "\n")

        with tempfile.TemporaryDirectory() as scores:
            evaluate(Recorder(record), tasks, Path(scores))
    return counts


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
