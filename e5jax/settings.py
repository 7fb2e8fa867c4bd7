"""What a folder says about how its model embeds: pooling, prompts, and how much of a vector is kept."""

from pathlib import Path
from typing import NamedTuple

from e5jax.compact import Ranges, read_ranges
from e5jax.config import Pooling
from e5jax.errors import ConfigError
from e5jax.model.folder import file_of, read_object
from e5jax.tokens import E5, Templates

DEFAULT_LIMIT = 512  # tokens a text, when the folder does not say
PROMPTS = "config_sentence_transformers.json"
TEMPLATES = "e5jax_templates"  # in that file, beside prompts that one task is put into


class Settings(NamedTuple):
    """What a folder says about how its model embeds."""

    pooling: Pooling
    limit: int
    prompts: dict[str, str]
    dtype: str
    dimensions: int | None  # leading ones that are kept; None: all
    ranges: dict[int, Ranges]  # of int8 and uint8, by dimensions
    templates: Templates = E5


def read_settings(folder: Path) -> Settings:
    """Reads the sentence-transformers files, an adapter's own before its base's; without any, as E5-Mistral does it: last token."""

    def read(name: str) -> dict:
        path = file_of(folder, name)
        return read_object(path) if path.is_file() else {}

    model, said = read("config.json"), read(PROMPTS)
    dtype = model.get("dtype") or model.get("torch_dtype") or "float32"
    return Settings(
        pooling=_pooling(read("1_Pooling/config.json"), folder),
        limit=read("sentence_bert_config.json").get("max_seq_length") or DEFAULT_LIMIT,
        prompts=said.get("prompts") or {},
        dtype="bfloat16" if dtype == "float16" else dtype,
        dimensions=said.get("truncate_dim"),
        ranges=read_ranges(folder),
        templates=_templates(said.get(TEMPLATES, {}), folder),
    )


def _templates(values: dict, folder: Path) -> Templates:
    if not isinstance(values, dict) or not all(
        name in Templates._fields and isinstance(text, str) for name, text in values.items()
    ):
        raise ConfigError(f"{folder}/{PROMPTS}: {TEMPLATES} are {values!r}; they are texts, query and document")
    return Templates(**values)


def _pooling(config: dict, folder: Path) -> Pooling:
    # sentence-transformers 6 names the mode; earlier versions set one of several flags.
    mode = config.get("pooling_mode") or next(
        (name for name, on in config.items() if name.startswith("pooling_mode_") and on), "lasttoken"
    )
    modes: dict[str, Pooling] = {
        "lasttoken": "last",
        "mean": "mean",
        "weightedmean": "weighted_mean",
        "pooling_mode_lasttoken": "last",
        "pooling_mode_mean_tokens": "mean",
        "pooling_mode_weightedmean_tokens": "weighted_mean",
    }
    if mode not in modes:
        raise ConfigError(
            f"{folder}/1_Pooling/config.json: pooling {mode!r} is not supported; supported are lasttoken, mean, weightedmean"
        )
    return modes[mode]
