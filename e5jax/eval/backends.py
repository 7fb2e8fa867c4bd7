"""A Hugging Face folder as an mteb encoder: on JAX, or on PyTorch through sentence-transformers.

A folder and evaluation settings flow in, an encoder flows out.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import jax
import mteb
import numpy as np
import torch
from jaxtyping import Float
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Normalize

from e5jax.data.tokenizer import E5, Templates, TextTokenizer
from e5jax.errors import ConfigError
from e5jax.eval.encoder import UNIT, InstructEncoder, Output
from e5jax.eval.preset import PRESETS, Preset
from e5jax.inference.embedder import Embedder
from e5jax.inference.folder_settings import Settings, read_settings
from e5jax.inference.shards import model_identity

_DEFAULT_LIMIT = 32_768  # tokens, if a folder sets no limit


def settings_of(
    folder: Path, backend: str, preset: str, instruction: str | None, dtype: str | None = None
) -> dict[str, str | None]:
    """Everything besides the data that decides a score, as stored in `settings.json`.

    `dtype` None: half precision on an accelerator, float32 on a CPU.
    """
    half = {"torch": "float16", "jax": "bfloat16"}[backend]
    fast = torch.cuda.is_available() if backend == "torch" else jax.default_backend() != "cpu"
    return {
        "name": folder.resolve().name,
        "model": model_identity(folder)[:16],
        "backend": backend,
        "preset": preset,
        "instruction": instruction,
        "dtype": dtype or (half if fast else "float32"),
        "mteb": mteb.__version__,
    }


def make_encoder(folder: Path, settings: Mapping[str, str | None]) -> InstructEncoder:
    """The encoder that `settings_of` describes."""
    make = {"torch": torch_encoder, "jax": jax_encoder}[settings["backend"] or "torch"]
    return make(
        folder,
        PRESETS[settings["preset"] or "paper"],
        settings["instruction"],
        settings["dtype"] or "float32",
    )


class TextEmbedder(Protocol):
    """The part of `e5jax.Embedder` that `JaxEncoder` uses."""

    tokenizer: TextTokenizer

    def encode(
        self,
        texts: Sequence[str],
        instruction: str | None = None,
        show_progress: bool = False,
        *,
        normalise: bool = True,
    ) -> Float[np.ndarray, "b d"]: ...


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


def jax_encoder(
    folder: Path, preset: Preset, instruction: str | None = None, dtype: str = "float32"
) -> JaxEncoder:
    """The folder as an `e5jax.Embedder`, on all devices of JAX."""
    embedder = Embedder.from_pretrained(folder, dtype=dtype)
    # Documents have their own prompt, never the default one: the task tells which texts they are.
    settings = embedder.settings
    embedder.settings = settings._replace(
        default_prompt=settings.templates.document, dimensions=None
    )
    output = Output(settings.normalises, settings.dimensions, settings.similarity)
    return JaxEncoder(embedder, preset, instruction, folder.resolve().name, output)


class TorchEncoder(InstructEncoder):
    """A sentence-transformers model for mteb; with several devices, one process for each."""

    def __init__(
        self,
        model: SentenceTransformer,
        preset: Preset,
        instruction: str | None,
        name: str,
        devices: Sequence[str] = (),
        templates: Templates = E5,
    ) -> None:
        modules, limit = list(model), model.max_seq_length or _DEFAULT_LIMIT
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
        # The processes of the pool have copies of the model.
        if len(self._devices) > 1 and self._pool_limit != self.limit:
            self._restart_pool()
        # An empty prompt, unlike None, also switches off a default prompt of the folder.
        vectors = self._model.encode(
            texts,
            prompt=self.templates.prefix(instruction),
            show_progress_bar=show_progress,
            convert_to_numpy=True,
            pool=self._pool,
        )
        return np.asarray(vectors, np.float32)

    def _restart_pool(self) -> None:
        if self._pool is not None:
            self._model.stop_multi_process_pool(self._pool)
        self._pool = self._model.start_multi_process_pool(self._devices)
        self._pool_limit = self.limit


def torch_encoder(
    folder: Path, preset: Preset, instruction: str | None = None, dtype: str = "float32"
) -> TorchEncoder:
    """The folder in sentence-transformers, on every GPU that PyTorch finds, or on the CPU."""
    if not (folder / "modules.json").is_file():
        raise ConfigError(
            f"{folder}: not a sentence-transformers folder (no modules.json); "
            "`e5jax export` writes one"
        )
    settings = read_settings(folder)
    devices = [f"cuda:{number}" for number in range(torch.cuda.device_count())]
    model = SentenceTransformer(
        str(folder),
        # Pickled weights are never read.
        model_kwargs={"dtype": getattr(torch, dtype), "use_safetensors": True},
        device=devices[0] if len(devices) == 1 else "cpu",
        local_files_only=True,
    )
    _check_special_tokens(model, settings, folder)
    return TorchEncoder(
        model, preset, instruction, folder.resolve().name, devices, settings.templates
    )


def _check_special_tokens(model: SentenceTransformer, settings: Settings, folder: Path) -> None:
    """Last-token pooling needs the EOS, which transformers 5, unlike 4, omits in some folders."""
    assert settings.frame is not None, "a folder with modules.json has one"
    begin, end = list(settings.frame.begin), list(settings.frame.end)
    ids = model.tokenizer("a")["input_ids"]
    framed = ids[: len(begin)] == begin and ids[len(ids) - len(end) :] == end
    if not framed or len(ids) <= len(begin + end):
        raise ConfigError(
            f"{folder}: transformers tokenises 'a' as {ids}, but the folder's files ask for "
            f"{begin} before a text and {end} after it; use --backend=jax, which adds them "
            "itself, or a folder that `e5jax export` wrote"
        )
