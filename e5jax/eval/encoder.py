"""Embedders as mteb encoders: the same folder on JAX or on PyTorch, put to a task by a preset."""

import json
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from jaxtyping import Float
from mteb.abstasks.task_metadata import TaskMetadata
from mteb.models import ModelMeta
from mteb.models.abs_encoder import AbsEncoder
from mteb.models.model_meta import ScoringFunction
from mteb.types import BatchedInput, PromptType
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Normalize
from torch.utils.data import DataLoader

from e5jax.embedder import Embedder
from e5jax.errors import ConfigError
from e5jax.eval.preset import Preset
from e5jax.eval.vectors import Vectors
from e5jax.model.folder import file_of, read_object
from e5jax.settings import read_settings
from e5jax.tokens import E5, Templates, TextTokenizer


class TextEmbedder(Protocol):
    """What `JaxEncoder` needs of `e5jax.Embedder`."""

    tokenizer: TextTokenizer

    def encode(
        self, texts: Sequence[str], instruction: str | None = None, show_progress: bool = False, *, normalise: bool = True
    ) -> Float[np.ndarray, "b d"]: ...


class InstructEncoder(AbsEncoder):
    """An mteb EncoderProtocol that puts each text to the model as the preset says.

    `instruction` None: the preset's; empty: none at all. `limit`: most tokens of a text, which a task may raise.
    """

    def __init__(
        self, name: str, preset: Preset, limit: int, *, normalises: bool, instruction: str | None = None, templates: Templates = E5
    ) -> None:
        self.preset, self.instruction, self.templates = preset, instruction, templates
        self.usual_limit = self.limit = min(limit, preset.limit or limit)
        self.vectors: Vectors | None = None  # where they are kept, if they are
        self._normalises = normalises
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
        given = self.preset.given(task_metadata, prompt_type, self.instruction)
        instruction = None if prompt_type == PromptType.document and not given else given
        pooled = self._kept(texts, instruction, bool(kwargs.get("show_progress_bar", False)))
        unit = self.preset.unit(task_metadata)
        return unit_length(pooled) if unit or (unit is None and self._normalises) else pooled

    def _kept(self, texts: list[str], instruction: str | None, show_progress: bool) -> Float[np.ndarray, "b d"]:
        if self.vectors is None:
            return self._pooled(texts, instruction, show_progress)
        return self.vectors.get(
            texts, self.templates.prefix(instruction), self.limit, lambda: self._pooled(texts, instruction, show_progress)
        )

    @abstractmethod
    def _pooled(self, texts: list[str], instruction: str | None, show_progress: bool) -> Float[np.ndarray, "b d"]:
        """Vectors of any length, float32. `instruction` is empty for queries without one, and None for documents."""


def unit_length(vectors: Float[np.ndarray, "b d"]) -> Float[np.ndarray, "b d"]:
    """Divides by the Euclidean length."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)


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


class JaxEncoder(InstructEncoder):
    """An `e5jax.Embedder` for mteb."""

    def __init__(
        self,
        embedder: TextEmbedder,
        preset: Preset,
        instruction: str | None = None,
        name: str = "jax",
        *,
        normalises: bool = True,
    ) -> None:
        limit, templates = embedder.tokenizer.limit, embedder.tokenizer.templates
        super().__init__(name, preset, limit, normalises=normalises, instruction=instruction, templates=templates)
        self._embedder = embedder

    def _pooled(self, texts: list[str], instruction: str | None, show_progress: bool) -> Float[np.ndarray, "b d"]:
        self._embedder.tokenizer.limit = self.limit
        return self._embedder.encode(texts, instruction=instruction, show_progress=show_progress, normalise=False)


class TorchEncoder(InstructEncoder):
    """A sentence-transformers model for mteb; several devices are a process each. Made by `torch_encoder`."""

    def __init__(
        self,
        model: SentenceTransformer,
        preset: Preset,
        instruction: str | None,
        name: str,
        devices: Sequence[str] = (),
        templates: Templates = E5,
    ) -> None:
        normalises, limit = any(isinstance(module, Normalize) for module in model), model.max_seq_length or _LONGEST
        super().__init__(name, preset, limit, normalises=normalises, instruction=instruction, templates=templates)
        modules = [module for module in model if not isinstance(module, Normalize)]
        self._model = SentenceTransformer(modules=modules, device=str(model.device), truncate_dim=model.truncate_dim)
        self._devices, self._pool, self._pool_limit = list(devices), None, 0

    def _pooled(self, texts: list[str], instruction: str | None, show_progress: bool) -> Float[np.ndarray, "b d"]:
        self._model.max_seq_length = self.limit
        if len(self._devices) > 1 and self._pool_limit != self.limit:  # its processes have copies of the model
            self._restart_pool()
        # An empty prompt, unlike None, also switches off a default prompt that the folder may name.
        prompt = self.templates.prefix(instruction)
        vectors = self._model.encode(texts, prompt=prompt, show_progress_bar=show_progress, convert_to_numpy=True, pool=self._pool)
        return np.asarray(vectors, np.float32)

    def _restart_pool(self) -> None:
        if self._pool is not None:
            self._model.stop_multi_process_pool(self._pool)
        self._pool, self._pool_limit = self._model.start_multi_process_pool(self._devices), self.limit


_LONGEST = 32_768  # tokens, where a folder sets no limit


def torch_encoder(folder: Path, preset: Preset, instruction: str | None = None, dtype: str = "float32") -> TorchEncoder:
    """The folder through sentence-transformers, on every GPU that PyTorch sees, or on the CPU."""
    if not (folder / "modules.json").is_file():
        raise ConfigError(f"{folder}: not a sentence-transformers folder (no modules.json); `e5jax export` makes one")
    devices = [f"cuda:{number}" for number in range(torch.cuda.device_count())]
    device = devices[0] if len(devices) == 1 else "cpu"
    kwargs = {"dtype": getattr(torch, dtype), "use_safetensors": True}  # what is pickled is never read
    model = SentenceTransformer(str(folder), model_kwargs=kwargs, device=device, local_files_only=True)
    _check_ends(model, folder)
    return TorchEncoder(model, preset, instruction, folder.resolve().name, devices, read_settings(folder).templates)


def _check_ends(model: SentenceTransformer, folder: Path) -> None:
    """Last-token pooling reads the EOS, which transformers 5 leaves out of some folders that 4 read rightly."""
    settings = read_object(file_of(folder, "config.json"))
    ids = model.tokenizer("a")["input_ids"]
    if ids[0] != settings["bos_token_id"] or ids[-1] != settings["eos_token_id"]:
        raise ConfigError(
            f"{folder}: transformers makes {ids} of 'a', not <s> … </s> ({settings['bos_token_id']} … {settings['eos_token_id']}); "
            "use --backend=jax, which adds both itself, or a folder that `e5jax export` wrote"
        )


def jax_encoder(folder: Path, preset: Preset, instruction: str | None = None, dtype: str = "float32") -> JaxEncoder:
    """The folder through `e5jax.Embedder`, on all devices that JAX sees."""
    modules = folder / "modules.json"
    kinds = [module["type"] for module in json.loads(modules.read_text(encoding="utf-8"))] if modules.is_file() else ["Normalize"]
    normalises = any(kind.rpartition(".")[2] == "Normalize" for kind in kinds)
    embedder = Embedder.from_pretrained(folder, dtype=dtype)
    return JaxEncoder(embedder, preset, instruction, folder.resolve().name, normalises=normalises)
