"""Where a model's files lie: in a folder, in a snapshot of the hub, or, for an adapter, in two folders: its own and its base's."""

import glob
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import (
    HfHubHTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)

from e5jax.config.validate import is_hub_id
from e5jax.errors import ConfigError
from e5jax.jsonl import read_json, read_object

ADAPTER = "adapter_config.json"  # of PEFT
MODULES = "modules.json"  # of sentence-transformers
INDEX, SINGLE = "model.safetensors.index.json", "model.safetensors"
WEIGHTS = (SINGLE, INDEX)
ADAPTER_WEIGHTS = "adapter_model.safetensors"
# What says what a model is, at the top of a repository. The hub takes patterns; names without wildcards are only themselves.
SETTINGS = [
    *(
        "config.json",
        ADAPTER,
        INDEX,
        MODULES,
        "config_sentence_transformers.json",
        "sentence_bert_config.json",
        "ranges.json",
    ),
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
]


def locate(name: str, revision: str | None = None) -> Path:
    """A folder as it is, a hub id downloaded (weights as safetensors only). Raises ConfigError when there is neither."""
    if Path(name).is_dir():
        return Path(name)
    if not is_hub_id(name):
        raise ConfigError(
            f"{name!r}: there is no such folder; give a Hugging Face folder or a hub id like org/name"
        )
    try:
        folder = Path(snapshot_download(name, revision=revision, allow_patterns=SETTINGS))
        # Of the same commit, whose name the folder has: the repository may change meanwhile.
        return Path(
            snapshot_download(
                name, revision=folder.name, allow_patterns=[*SETTINGS, *needed(folder)]
            )
        )
    except (
        HfHubHTTPError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        OSError,
    ) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(
            f"{name!r}: no such folder here, and not to be had from the hub ({reason})"
        ) from error


def needed(folder: Path) -> list[str]:
    """What to download besides SETTINGS, by what these say: weights that the index names, or one file; an adapter's; modules'."""
    files = shards(folder / INDEX) if (folder / INDEX).is_file() else [SINGLE]
    if (folder / ADAPTER).is_file():
        files.append(ADAPTER_WEIGHTS)
    entries = read_json(folder / MODULES) if (folder / MODULES).is_file() else []
    for entry in entries if isinstance(entries, list) else []:
        if (
            isinstance(entry, dict)
            and isinstance(path := entry.get("path"), str)
            and path not in ("", ".")
        ):
            files += [f"{path}/config.json", f"{path}/{SINGLE}"]
    return [glob.escape(file) for file in files]


def shards(index: Path) -> list[str]:
    """The files that an index of safetensors names. Raises ConfigError."""
    names = read_object(index).get("weight_map")
    if not isinstance(names, dict) or not names:
        raise ConfigError(f"{index}: not an index of safetensors files (weight_map is {names!r})")
    return sorted({str(name) for name in names.values()})


def base_of(folder: Path) -> Path | None:
    """The folder of the model that an adapter changes; None where there is no adapter.

    As in transformers, an adapter beside the weights of a model changes that model, whatever base it names.
    """
    if not (folder / ADAPTER).is_file():
        return None
    if any((folder / name).is_file() for name in WEIGHTS):
        return folder
    config = read_object(folder / ADAPTER)
    name = config.get("base_model_name_or_path")
    if not isinstance(name, str) or not name:
        raise ConfigError(
            f"{folder / ADAPTER}: base_model_name_or_path is {name!r}; name the folder or hub id of the base model"
        )
    try:
        return locate(name, config.get("revision"))
    except ConfigError as error:
        raise ConfigError(f"{folder / ADAPTER}: base_model_name_or_path={error}") from error


def file_of(folder: Path, name: str) -> Path:
    """A file of the folder; where an adapter does not have it, its base's."""
    base = None if (folder / name).is_file() else base_of(folder)
    return (base or folder) / name
