"""One file per decoder family; a family is chosen by the `model_type` of its Hugging Face config."""

import json
from pathlib import Path
from types import ModuleType

from e5jax.errors import ConfigError
from e5jax.model.families import mistral
from e5jax.model.spec import Spec

FAMILIES: dict[str, ModuleType] = {mistral.MODEL_TYPE: mistral}


def read_spec(folder: Path) -> Spec:
    """The Spec of a Hugging Face folder; raises ConfigError for a missing config or an unknown family."""
    path = folder / "config.json"
    if not path.is_file():
        raise ConfigError(f"{path}: no such file; a Hugging Face model folder has one")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ConfigError(f"{path}: not JSON ({error})") from error
    if not isinstance(config, dict):
        raise ConfigError(f"{path}: not a JSON object")
    family = FAMILIES.get(config.get("model_type", ""))
    if family is None:
        raise ConfigError(f"{path}: model_type={config.get('model_type')!r} is not supported; supported: {', '.join(FAMILIES)}")
    return family.spec_from_config(config, str(path))
