"""A local folder in BEIR layout (`data/beir.py`) as an mteb retrieval task: no network."""

import hashlib
from pathlib import Path

from datasets import Dataset
from mteb.abstasks.retrieval import AbsTaskRetrieval
from mteb.abstasks.retrieval_dataset_loaders import RetrievalSplitData
from mteb.abstasks.task_metadata import TaskMetadata

from e5jax.data.beir import FILES, Retrieval, find_file, read_retrieval


class LocalRetrieval(AbsTaskRetrieval):
    """A retrieval task whose data is already in memory; made by `load_task`.

    `limit`: tokens to read of a text, if it says so. `notes`: what the data lack.
    """

    def __init__(
        self,
        metadata: TaskMetadata,
        data: RetrievalSplitData,
        limit: int | None,
        notes: tuple[str, ...],
    ) -> None:
        self.metadata, self.limit, self.notes = metadata, limit, notes
        super().__init__()
        self.dataset = {"default": {"test": data}}
        self.data_loaded = True  # so mteb neither downloads nor unloads


def load_task(folder: Path) -> LocalRetrieval:
    """Reads and checks the folder; raises ConfigError `file:line: reason` for the first thing wrong with it."""
    found = read_retrieval(folder)
    data = RetrievalSplitData(
        corpus=Dataset.from_list(
            [{"id": id_, **document._asdict()} for id_, document in found.corpus.items()]
        ),
        queries=Dataset.from_list(
            [{"id": id_, "text": text} for id_, text in found.queries.items()]
        ),
        relevant_docs=found.relevant,
        top_ranked=None,
    )
    task = LocalRetrieval(_metadata(folder, found), data, found.limit, found.notes)
    task.ignore_identical_ids = found.skips_own
    return task


def _metadata(folder: Path, found: Retrieval) -> TaskMetadata:
    return TaskMetadata(
        name=folder.resolve().name,
        description=f"Retrieval over {folder}",
        type="Retrieval",
        category="t2t",
        prompt={"query": found.instruction},  # pyright: ignore[reportArgumentType]  its keys come from an enum
        dataset={"path": str(folder.resolve()), "revision": _revision(folder)},
        eval_splits=["test"],
        eval_langs=["eng-Latn"],
        main_score=found.score,
    )


def _revision(folder: Path) -> str:
    """A hash of the data, so that two results of the same revision can be compared."""
    digest = hashlib.sha256()
    for name in FILES:
        digest.update(find_file(folder, name).read_bytes())
    return digest.hexdigest()[:16]
