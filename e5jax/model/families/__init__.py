"""One file per decoder family; a family is chosen by the `model_type` of its Hugging Face config."""

from pathlib import Path
from types import ModuleType
from typing import Any

from e5jax.errors import ConfigError
from e5jax.jsonl import positive, read_object, token_of
from e5jax.model.families import llama, mistral
from e5jax.model.folder import file_of
from e5jax.model.spec import Spec

FAMILIES: dict[str, ModuleType] = {family.MODEL_TYPE: family for family in (mistral, llama)}


def read_spec(folder: Path) -> Spec:
    """The Spec of a Hugging Face folder, an adapter's being its base's; raises ConfigError for none, or an unknown family."""
    path, config, family = _read(folder)
    spec = family.spec_from_config(config, str(path))
    return spec._replace(
        bos=_special(folder, "bos", spec.bos),
        eos=_special(folder, "eos", config.get("eos_token_id", spec.eos)),
    )


def read_positions(folder: Path) -> int:
    """The positions that the model of a folder has been made for; the default of its family where its config does not say."""
    path, config, family = _read(folder)
    return positive(config, "max_position_embeddings", str(path)) or family.POSITIONS


def _read(folder: Path) -> tuple[Path, dict[str, Any], ModuleType]:
    path = file_of(folder, "config.json")
    if not path.is_file():
        raise ConfigError(f"{path}: no such file; a Hugging Face model folder has one")
    config = read_object(path)
    kind = config.get("model_type")
    family = FAMILIES.get(kind) if isinstance(kind, str) else None
    if family is None:
        raise ConfigError(
            f"{path}: model_type={kind!r} is not supported; supported: {', '.join(FAMILIES)}"
        )
    return path, config, family


def _special(folder: Path, name: str, value: object) -> int | None:
    """One id of a special token. Of several ids, or where config.json has none, it is that of the tokenizer's own token."""
    if isinstance(value, int):
        return value
    ids = value if isinstance(value, list) else []
    path = file_of(folder, "tokenizer_config.json")
    token = token_of(read_object(path), f"{name}_token", str(path)) if path.is_file() else None
    own = _id_of(file_of(folder, "tokenizer.json"), token) if token else None
    return own if own in ids or (own is not None and not ids) else next(iter(ids), None)


def _id_of(path: Path, token: str) -> int | None:
    """The id of an added token; special tokens are among these."""
    added = read_object(path).get("added_tokens") if path.is_file() else None
    entries = (
        [entry for entry in added if isinstance(entry, dict)] if isinstance(added, list) else []
    )
    return next(
        (
            entry["id"]
            for entry in entries
            if entry.get("content") == token and isinstance(entry.get("id"), int)
        ),
        None,
    )
