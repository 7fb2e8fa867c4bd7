"""One file per decoder family; a family is chosen by the `model_type` of its Hugging Face config."""

from pathlib import Path
from types import ModuleType

from e5jax.errors import ConfigError
from e5jax.model.families import llama, mistral
from e5jax.model.folder import file_of, read_object
from e5jax.model.spec import Spec

FAMILIES: dict[str, ModuleType] = {family.MODEL_TYPE: family for family in (mistral, llama)}


def read_spec(folder: Path) -> Spec:
    """The Spec of a Hugging Face folder, an adapter's being its base's; raises ConfigError for none, or an unknown family."""
    path = file_of(folder, "config.json")
    if not path.is_file():
        raise ConfigError(f"{path}: no such file; a Hugging Face model folder has one")
    config = read_object(path)
    family = FAMILIES.get(config.get("model_type", ""))
    if family is None:
        raise ConfigError(f"{path}: model_type={config.get('model_type')!r} is not supported; supported: {', '.join(FAMILIES)}")
    return family.spec_from_config(config, str(path))
