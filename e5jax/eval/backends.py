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

from e5jax.data.tokenizer import TextTokenizer
from e5jax.errors import ConfigError
from e5jax.eval.encoder import InstructEncoder, ModelInfo
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
    make = {"torch": TorchEncoder, "jax": jax_encoder}[settings["backend"] or "torch"]
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
        info: ModelInfo | None = None,
    ) -> None:
        tokenizer = embedder.tokenizer
        info = info or ModelInfo("jax", tokenizer.limit, tokenizer.templates)
        super().__init__(info, preset, instruction)
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
    settings = embedder.settings
    info = ModelInfo(
        folder.resolve().name,
        embedder.tokenizer.limit,
        settings.templates,
        settings.normalises,
        settings.dimensions,
        settings.similarity,
    )
    # Documents have their own prompt, never the default one: the task tells which texts they are.
    embedder.settings = settings._replace(
        default_prompt=settings.templates.document, dimensions=None
    )
    return JaxEncoder(embedder, preset, instruction, info)


class TorchEncoder(InstructEncoder):
    """A folder in sentence-transformers, on every GPU that PyTorch finds, or on the CPU.

    With several GPUs, each has a process.
    """

    def __init__(
        self, folder: Path, preset: Preset, instruction: str | None = None, dtype: str = "float32"
    ) -> None:
        if not (folder / "modules.json").is_file():
            raise ConfigError(
                f"{folder}: not a sentence-transformers folder (no modules.json); "
                "`e5jax export` writes one"
            )
        settings = read_settings(folder)
        self._gpus = [f"cuda:{number}" for number in range(torch.cuda.device_count())]
        device = self._gpus[0] if len(self._gpus) == 1 else "cpu"
        model = SentenceTransformer(
            str(folder),
            # Pickled weights are never read.
            model_kwargs={"dtype": getattr(torch, dtype), "use_safetensors": True},
            device=device,
            local_files_only=True,
        )
        _check_special_tokens(model, settings, folder)
        modules = list(model)
        info = ModelInfo(
            folder.resolve().name,
            model.max_seq_length or _DEFAULT_LIMIT,
            settings.templates,
            isinstance(modules[-1], Normalize),
            model.truncate_dim,
            model.similarity_fn_name,
        )
        super().__init__(info, preset, instruction)
        while isinstance(modules[-1], Normalize):
            modules.pop()
        self._model = SentenceTransformer(modules=modules, device=device)
        self._pool, self._pool_limit = None, 0

    def _pooled(
        self, texts: list[str], instruction: str | None, show_progress: bool
    ) -> Float[np.ndarray, "b d"]:
        self._model.max_seq_length = self.limit
        # The processes of the pool have copies of the model.
        if len(self._gpus) > 1 and self._pool_limit != self.limit:
            self._restart_pool()
        # An empty prompt, unlike None, also switches off a default prompt of the folder.
        vectors = self._model.encode(
            texts,
            prompt=self.info.templates.prefix(instruction),
            show_progress_bar=show_progress,
            convert_to_numpy=True,
            pool=self._pool,
        )
        return np.asarray(vectors, np.float32)

    def _restart_pool(self) -> None:
        if self._pool is not None:
            self._model.stop_multi_process_pool(self._pool)
        self._pool = self._model.start_multi_process_pool(self._gpus)
        self._pool_limit = self.limit


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
