"""All that decides a score besides the data, as it stands in `settings.json`, and the encoder that it means."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

import jax
import mteb
import torch

from e5jax.eval.encoder import InstructEncoder, jax_encoder, torch_encoder
from e5jax.eval.preset import PRESETS


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
    return make(folder, PRESETS[settings["preset"] or "paper"], settings["instruction"], settings["dtype"] or "float32")


def fingerprint(folder: Path) -> str:
    """Tells models apart without reading all of them: names and sizes of all files, the first and last megabyte of each."""
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        size = path.stat().st_size
        digest.update(f"{path.relative_to(folder).as_posix()} {size}\n".encode())
        with path.open("rb") as file:
            digest.update(file.read(1 << 20))
            file.seek(max(0, size - (1 << 20)))
            digest.update(file.read())
    return digest.hexdigest()[:16]
