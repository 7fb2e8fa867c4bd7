"""The texts that the evaluation of a task gives a model: training data must not have them.

Tasks flow in, JSONL flows out: `id` (such as `NFCorpus/default/test/query/12`), `kind` and `text`,
each text of a task once. A recorder takes the place of the model, whatever the type of task.
"""

import hashlib
import json
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from mteb.abstasks.abstask import AbsTask
from mteb.abstasks.task_metadata import TaskMetadata
from mteb.models.abs_encoder import AbsEncoder
from mteb.types import BatchedInput, PromptType
from torch.utils.data import DataLoader

from e5jax.eval.encoder import model_meta
from e5jax.eval.evaluate import evaluate
from e5jax.workdir.directory import atomic_output

TEXTS = "texts.jsonl"
_DIMENSIONS = 8  # of random vectors, whose scores are discarded


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
