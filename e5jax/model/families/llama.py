"""The Llama family: Mistral's decoder without a window, and with biases where its config has them."""

from e5jax.errors import ConfigError
from e5jax.jsonl import flag
from e5jax.model.families import mistral
from e5jax.model.spec import Spec

MODEL_TYPE = "llama"
NAMES = mistral.NAMES
IGNORED = mistral.IGNORED
POSITIONS = 2_048  # where a config does not say


def spec_from_config(config: dict, where: str) -> Spec:
    """Reads a Hugging Face config.json; raises ConfigError for what the decoder does not implement."""
    biases = {name: flag(config, name, False, where) for name in ("attention_bias", "mlp_bias")}
    if len(set(biases.values())) > 1:
        raise ConfigError(f"{where}: {biases}; biases on all linear maps are supported, or on none")
    # The defaults are those of transformers' LlamaConfig.
    usual = {"num_key_value_heads": None, "sliding_window": None}
    spec = mistral.spec_from_config(usual | config | {"sliding_window": None}, where)
    return spec._replace(family=MODEL_TYPE, bias=biases["mlp_bias"])


def config_from_spec(spec: Spec, positions: int, dtype: str) -> dict:
    """The config.json of an exported folder; `positions` are those that the model has been made for."""
    return mistral.config_from_spec(spec._replace(family=MODEL_TYPE, window=None), positions, dtype)
