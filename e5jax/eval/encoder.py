"""Embedders as mteb encoders: texts of a task flow in, vectors by the rules of a preset flow out.

Each backend (`backends.py`) returns pooled vectors before the last normalisation. A cache on disk
can keep them, so that none is computed twice.
"""

import hashlib
import json
from abc import abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Float
from mteb.abstasks.task_metadata import TaskMetadata
from mteb.models import ModelMeta
from mteb.models.abs_encoder import AbsEncoder
from mteb.models.model_meta import ScoringFunction
from mteb.types import BatchedInput, PromptType
from torch.utils.data import DataLoader

from e5jax.data.tokenizer import E5, Templates
from e5jax.errors import ConfigError
from e5jax.eval.preset import Preset
from e5jax.inference.folder_settings import Similarity
from e5jax.inference.shards import write_array
from e5jax.inference.vector_quantization import shortened


class VectorCache(NamedTuple):
    """A folder of vectors, one `.npy` for each call of a task, named after all they depend on.

    mteb encodes a corpus in parts of 50,000 texts, so a killed evaluation resumes with the part
    that is missing. `model` identifies the model, its backend and its precision.
    """

    folder: Path
    model: str

    def get(
        self,
        texts: Sequence[str],
        prefix: str,
        limit: int,
        compute: Callable[[], Float[np.ndarray, "b d"]],
    ) -> Float[np.ndarray, "b d"]:
        """The vectors of these texts with this prefix, cut at `limit` tokens."""
        key = json.dumps([self.model, limit, prefix, *texts]).encode()
        path = self.folder / f"{hashlib.blake2b(key, digest_size=20).hexdigest()}.npy"
        if not path.is_file():
            write_array(path, compute())
        return np.load(path, allow_pickle=False)


class ModelInfo(NamedTuple):
    """What a folder says about its vectors."""

    name: str
    limit: int  # tokens read of a text
    templates: Templates = E5
    normalises: bool = True
    dimensions: int | None = None  # leading dimensions to keep; None: all
    similarity: Similarity = "cosine"

    def finish(
        self, pooled: Float[np.ndarray, "b w"], normalise: bool | None
    ) -> Float[np.ndarray, "b d"]:
        """Cuts vectors and normalises the rest; None: normalises, then cuts, as the folder says."""
        if normalise is None:
            return (shortened(pooled, None) if self.normalises else pooled)[:, : self.dimensions]
        kept = pooled[:, : self.dimensions]
        return shortened(kept, None) if normalise else kept


class InstructEncoder(AbsEncoder):
    """An mteb EncoderProtocol that adds instructions to texts as a preset prescribes.

    `instruction` replaces that of every task; empty: none. A task may raise `limit`.
    Raises ConfigError for a similarity that mteb does not score.
    """

    def __init__(self, info: ModelInfo, preset: Preset, instruction: str | None) -> None:
        similarity = "cosine" if preset.cosine else info.similarity
        if similarity not in ("cosine", "dot"):
            raise ConfigError(
                f"similarity_fn_name={similarity!r}: mteb scores cosine and dot; "
                "use a preset that scores cosines (--preset=paper)"
            )
        self.preset, self.instruction, self.info = preset, instruction, info
        self.default_limit = self.limit = min(info.limit, preset.limit or info.limit)
        self.cache: VectorCache | None = None
        self.mteb_model_meta = model_meta(info.name, instruction != "", similarity)

    def encode(
        self,
        inputs: DataLoader[BatchedInput],
        *,
        task_metadata: TaskMetadata,
        prompt_type: PromptType | None = None,
        **kwargs: Any,
    ) -> Float[np.ndarray, "b d"]:
        """Embeds every text of the loader, in order."""
        texts = [text for batch in inputs for text in batch["text"]]
        instruction: str | None = self.preset.instruction(
            task_metadata, prompt_type, self.instruction
        )
        if prompt_type == PromptType.document and not instruction:
            instruction = None
        show_progress = bool(kwargs.get("show_progress_bar", False))

        def compute() -> Float[np.ndarray, "b d"]:
            return self._pooled(texts, instruction, show_progress)

        prefix = self.info.templates.prefix(instruction)
        pooled = self.cache.get(texts, prefix, self.limit, compute) if self.cache else compute()
        return self.info.finish(pooled, self.preset.normalises(task_metadata))

    @abstractmethod
    def _pooled(
        self, texts: list[str], instruction: str | None, show_progress: bool
    ) -> Float[np.ndarray, "b d"]:
        """Float32 vectors before the last normalisation.

        `instruction` is empty for queries without one, and None for documents.
        """


def model_meta(
    name: str, instructions: bool, similarity: Literal["cosine", "dot"] = "cosine"
) -> ModelMeta:
    """The description of an encoder that mteb requires."""
    return ModelMeta.create_empty(
        {
            "name": f"e5jax/{name}",
            "similarity_fn_name": ScoringFunction(similarity),
            "use_instructions": instructions,
            "model_type": ["dense"],
        }
    )
