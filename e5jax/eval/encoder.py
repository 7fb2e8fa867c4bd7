"""Embedders as mteb encoders: the same folder on JAX or on PyTorch, put to a task by a preset."""

from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

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

from e5jax.data.tokenizer import E5, Templates, TextTokenizer
from e5jax.errors import ConfigError
from e5jax.eval.preset import Preset
from e5jax.eval.vectors import Vectors
from e5jax.inference.embedder import Embedder
from e5jax.inference.folder_settings import Settings, Similarity, read_settings


class TextEmbedder(Protocol):
    """What `JaxEncoder` needs of `e5jax.Embedder`."""

    tokenizer: TextTokenizer

    def encode(
        self,
        texts: Sequence[str],
        instruction: str | None = None,
        show_progress: bool = False,
        *,
        normalise: bool = True,
    ) -> Float[np.ndarray, "b d"]: ...


class Output(NamedTuple):
    """What a folder does with pooled vectors."""

    normalises: bool = True
    dimensions: int | None = None  # leading ones that are kept of what its modules give; None: all
    similarity: Similarity = "cosine"

    def vectors(
        self, pooled: Float[np.ndarray, "b w"], unit: bool | None
    ) -> Float[np.ndarray, "b d"]:
        """`unit`: whether the kept dimensions are normalised. None: as in sentence-transformers, which normalises and then cuts."""
        if unit is None:
            return (unit_length(pooled) if self.normalises else pooled)[:, : self.dimensions]
        kept = pooled[:, : self.dimensions]
        return unit_length(kept) if unit else kept


UNIT = Output()


class InstructEncoder(AbsEncoder):
    """An mteb EncoderProtocol that puts each text to the model as the preset says.

    `instruction` None: the preset's; empty: none at all. `limit`: most tokens of a text, which a task may raise.
    Raises ConfigError for a similarity that mteb does not score.
    """

    def __init__(
        self,
        name: str,
        preset: Preset,
        limit: int,
        output: Output,
        instruction: str | None = None,
        templates: Templates = E5,
    ) -> None:
        similarity = "cosine" if preset.cosine else output.similarity
        if similarity not in ("cosine", "dot"):
            raise ConfigError(
                f"similarity_fn_name={similarity!r}: mteb scores cosine and dot; use a preset that scores cosines (--preset=paper)"
            )
        self.preset, self.instruction, self.templates = preset, instruction, templates
        self.usual_limit = self.limit = min(limit, preset.limit or limit)
        self.vectors: Vectors | None = None  # where they are kept, if they are
        self._output = output
        self.mteb_model_meta = model_meta(name, instruction != "", similarity)

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
        return self._output.vectors(pooled, self.preset.unit(task_metadata))

    def _kept(
        self, texts: list[str], instruction: str | None, show_progress: bool
    ) -> Float[np.ndarray, "b d"]:
        if self.vectors is None:
            return self._pooled(texts, instruction, show_progress)
        return self.vectors.get(
            texts,
            self.templates.prefix(instruction),
            self.limit,
            lambda: self._pooled(texts, instruction, show_progress),
        )

    @abstractmethod
    def _pooled(
        self, texts: list[str], instruction: str | None, show_progress: bool
    ) -> Float[np.ndarray, "b d"]:
        """What the folder's modules give before the last normalisation, float32.

        `instruction` is empty for queries without one, and None for documents.
        """


def unit_length(vectors: Float[np.ndarray, "b d"]) -> Float[np.ndarray, "b d"]:
    """Divides by the Euclidean length."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)


def model_meta(
    name: str, instructions: bool, similarity: Literal["cosine", "dot"] = "cosine"
) -> ModelMeta:
    """What mteb wants to know of an encoder."""
    return ModelMeta.create_empty(
        {
            "name": f"e5jax/{name}",
            "similarity_fn_name": ScoringFunction(similarity),
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
        output: Output = UNIT,
    ) -> None:
        tokenizer = embedder.tokenizer
        super().__init__(name, preset, tokenizer.limit, output, instruction, tokenizer.templates)
        self._embedder = embedder

    def _pooled(
        self, texts: list[str], instruction: str | None, show_progress: bool
    ) -> Float[np.ndarray, "b d"]:
        self._embedder.tokenizer.limit = self.limit
        return self._embedder.encode(
            texts, instruction=instruction, show_progress=show_progress, normalise=False
        )


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
        modules, limit = list(model), model.max_seq_length or _LONGEST
        output = Output(
            isinstance(modules[-1], Normalize), model.truncate_dim, model.similarity_fn_name
        )
        super().__init__(name, preset, limit, output, instruction, templates)
        while isinstance(modules[-1], Normalize):
            modules.pop()
        self._model = SentenceTransformer(modules=modules, device=str(model.device))
        self._devices, self._pool, self._pool_limit = list(devices), None, 0

    def _pooled(
        self, texts: list[str], instruction: str | None, show_progress: bool
    ) -> Float[np.ndarray, "b d"]:
        self._model.max_seq_length = self.limit
        if (
            len(self._devices) > 1 and self._pool_limit != self.limit
        ):  # its processes have copies of the model
            self._restart_pool()
        # An empty prompt, unlike None, also switches off a default prompt that the folder may name.
        prompt = self.templates.prefix(instruction)
        vectors = self._model.encode(
            texts,
            prompt=prompt,
            show_progress_bar=show_progress,
            convert_to_numpy=True,
            pool=self._pool,
        )
        return np.asarray(vectors, np.float32)

    def _restart_pool(self) -> None:
        if self._pool is not None:
            self._model.stop_multi_process_pool(self._pool)
        self._pool, self._pool_limit = (
            self._model.start_multi_process_pool(self._devices),
            self.limit,
        )


_LONGEST = 32_768  # tokens, where a folder sets no limit


def torch_encoder(
    folder: Path, preset: Preset, instruction: str | None = None, dtype: str = "float32"
) -> TorchEncoder:
    """The folder through sentence-transformers, on every GPU that PyTorch sees, or on the CPU."""
    if not (folder / "modules.json").is_file():
        raise ConfigError(
            f"{folder}: not a sentence-transformers folder (no modules.json); `e5jax export` makes one"
        )
    settings = read_settings(folder)
    devices = [f"cuda:{number}" for number in range(torch.cuda.device_count())]
    device = devices[0] if len(devices) == 1 else "cpu"
    kwargs = {
        "dtype": getattr(torch, dtype),
        "use_safetensors": True,
    }  # what is pickled is never read
    model = SentenceTransformer(
        str(folder), model_kwargs=kwargs, device=device, local_files_only=True
    )
    _check_ends(model, settings, folder)
    return TorchEncoder(
        model, preset, instruction, folder.resolve().name, devices, settings.templates
    )


def _check_ends(model: SentenceTransformer, settings: Settings, folder: Path) -> None:
    """Last-token pooling reads the EOS, which transformers 5 leaves out of some folders that 4 read rightly."""
    assert settings.frame is not None, "a folder with modules.json has one"
    begin, end = list(settings.frame.begin), list(settings.frame.end)
    ids = model.tokenizer("a")["input_ids"]
    if (
        ids[: len(begin)] != begin
        or ids[len(ids) - len(end) :] != end
        or len(ids) <= len(begin + end)
    ):
        raise ConfigError(
            f"{folder}: transformers makes {ids} of 'a', and its files mean {begin} before a text and {end} behind it; "
            "use --backend=jax, which adds them itself, or a folder that `e5jax export` wrote"
        )


def jax_encoder(
    folder: Path, preset: Preset, instruction: str | None = None, dtype: str = "float32"
) -> JaxEncoder:
    """The folder through `e5jax.Embedder`, on all devices that JAX sees."""
    embedder = Embedder.from_pretrained(folder, dtype=dtype)
    # A task says which texts are documents: these have their own prompt, and never the default one.
    settings = embedder.settings
    embedder.settings = settings._replace(
        default_prompt=settings.templates.document, dimensions=None
    )
    output = Output(settings.normalises, settings.dimensions, settings.similarity)
    return JaxEncoder(embedder, preset, instruction, folder.resolve().name, output)
