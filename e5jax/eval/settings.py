"""All that decides a score besides the data, as it stands in `settings.json`, and the encoder that it means."""

import hashlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax
import mteb
import torch

from e5jax.eval.encoder import InstructEncoder, jax_encoder, torch_encoder
from e5jax.eval.preset import PRESETS
from e5jax.inference.vector_quantization import FILE as RANGES

THREADS = 4  # hashing gives Python's lock back


def settings_of(
    folder: Path, backend: str, preset: str, instruction: str | None, dtype: str | None = None
) -> dict[str, str | None]:
    """All that decides a score, besides the data. `dtype` None: half precision where there is an accelerator to run it."""
    half = {"torch": "float16", "jax": "bfloat16"}[backend]
    fast = torch.cuda.is_available() if backend == "torch" else jax.default_backend() != "cpu"
    return {
        "name": folder.resolve().name,
        "model": fingerprint(folder),
        "backend": backend,
        "preset": preset,
        "instruction": instruction,
        "dtype": dtype or (half if fast else "float32"),
        "mteb": mteb.__version__,
    }


def make_encoder(folder: Path, settings: Mapping[str, str | None]) -> InstructEncoder:
    """The folder as an mteb encoder; `instruction` None is the preset's, empty none."""
    make = {"torch": torch_encoder, "jax": jax_encoder}[settings["backend"] or "torch"]
    return make(
        folder,
        PRESETS[settings["preset"] or "paper"],
        settings["instruction"],
        settings["dtype"] or "float32",
    )


def fingerprint(folder: Path) -> str:
    """Tells models apart: a hash of every byte of every file and of their names, but for ranges, which change no float."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != RANGES)
    with ThreadPoolExecutor(THREADS) as pool:
        sums = list(pool.map(_sum, paths))
    names = [path.relative_to(folder).as_posix() for path in paths]
    return hashlib.sha256(repr(list(zip(names, sums, strict=True))).encode()).hexdigest()[:16]


def _sum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
