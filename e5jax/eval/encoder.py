"""Embedders as mteb encoders: the same folder on JAX or on PyTorch, with the E5-Mistral protocol for instructions.

Retrieval: the instruction goes on queries, documents stay bare. Every other task type, reranking among them: the
instruction goes on every text. (mteb's own entry for E5-Mistral leaves reranking candidates bare; the paper does not.)
"""

from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from jaxtyping import Float
from mteb.abstasks.abstask import get_abstask_prompt
from mteb.abstasks.task_metadata import TaskMetadata
from mteb.models import ModelMeta
from mteb.models.abs_encoder import AbsEncoder
from mteb.models.model_meta import ScoringFunction
from mteb.types import BatchedInput, PromptType
from sentence_transformers import SentenceTransformer
from torch.utils.data import DataLoader

from e5jax.errors import ConfigError
from e5jax.tokens import query_text

BARE_DOCUMENTS = ("Retrieval", "InstructionRetrieval")


class TextEmbedder(Protocol):
    """What `JaxEncoder` needs of `e5jax.Embedder`."""

    def encode(
        self, texts: Sequence[str], instruction: str | None = None, show_progress: bool = False
    ) -> Float[np.ndarray, "b d"]: ...


class InstructEncoder(AbsEncoder):
    """An mteb EncoderProtocol that decides which texts carry which instruction.

    `instruction` None: the task's own; empty: none at all.
    """

    def __init__(self, name: str, instruction: str | None) -> None:
        self.instruction = instruction
        self.mteb_model_meta = model_meta(name, instructions=instruction != "")

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
        instruction = "" if is_bare(task_metadata, prompt_type) else self._instruction(task_metadata)
        return self._vectors(texts, instruction, bool(kwargs.get("show_progress_bar", False)))

    def _instruction(self, task: TaskMetadata) -> str:
        return task_instruction(task) if self.instruction is None else self.instruction

    @abstractmethod
    def _vectors(self, texts: list[str], instruction: str, show_progress: bool) -> Float[np.ndarray, "b d"]: ...


def model_meta(name: str, instructions: bool) -> ModelMeta:
    """What mteb wants to know of an encoder."""
    return ModelMeta.create_empty(
        {
            "name": f"e5jax/{name}",
            "similarity_fn_name": ScoringFunction.COSINE,
            "use_instructions": instructions,
            "model_type": ["dense"],
        }
    )


def is_bare(task: TaskMetadata, prompt_type: PromptType | None) -> bool:
    """True for the documents of a retrieval task."""
    return prompt_type == PromptType.document and task.type in BARE_DOCUMENTS


def task_instruction(task: TaskMetadata) -> str:
    """The task's own instruction, possibly empty, or mteb's default for its type if the task says nothing."""
    if task.prompt is None:
        return get_abstask_prompt(task.name)
    return task.prompt.get("query", "") if isinstance(task.prompt, dict) else task.prompt


class JaxEncoder(InstructEncoder):
    """An `e5jax.Embedder` for mteb."""

    def __init__(self, embedder: TextEmbedder, instruction: str | None = None, name: str = "jax") -> None:
        super().__init__(name, instruction)
        self._embedder = embedder

    def _vectors(self, texts: list[str], instruction: str, show_progress: bool) -> Float[np.ndarray, "b d"]:
        return self._embedder.encode(texts, instruction=instruction or None, show_progress=show_progress)


class TorchEncoder(InstructEncoder):
    """A sentence-transformers model for mteb; made by `torch_encoder`."""

    def __init__(self, model: SentenceTransformer, instruction: str | None, name: str) -> None:
        super().__init__(name, instruction)
        self._model = model

    def _vectors(self, texts: list[str], instruction: str, show_progress: bool) -> Float[np.ndarray, "b d"]:
        # An empty prompt, unlike None, also switches off a default prompt that the folder may name.
        return self._model.encode(texts, prompt=query_text("", instruction), show_progress_bar=show_progress, convert_to_numpy=True)


def torch_encoder(folder: Path, instruction: str | None = None) -> TorchEncoder:
    """The folder through sentence-transformers in float32, on the GPU if PyTorch sees one."""
    if not (folder / "modules.json").is_file():
        raise ConfigError(f"{folder}: not a sentence-transformers folder (no modules.json); `e5jax export` makes one")
    model = SentenceTransformer(
        str(folder),
        model_kwargs={"dtype": torch.float32, "use_safetensors": True},  # what is pickled is never read
        local_files_only=True,
    )
    return TorchEncoder(model, instruction, folder.resolve().name)
