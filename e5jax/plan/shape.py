"""The decoder's shape, from as little as there is before a run: no weights, no data, for well-known models no network."""

import dataclasses
from pathlib import Path

from huggingface_hub import hf_hub_download
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

from e5jax.config import Config, Scratch, Tokens
from e5jax.data.tokenizer import read_tokenizer
from e5jax.errors import ConfigError
from e5jax.model.families import read_spec
from e5jax.model.spec import Spec

MISTRAL_7B = Spec("mistral", 32_000, 4_096, 14_336, 32, 32, 8, 128, 10_000.0, 4_096, 1e-5, 1, 2)
KNOWN = {"mistralai/Mistral-7B-v0.1": MISTRAL_7B, "intfloat/e5-mistral-7b-instruct": MISTRAL_7B}


def shape_of(config: Config) -> Spec:
    """The decoder that the main training run of a config trains. Raises ConfigError when nothing tells its shape."""
    base = config.model.base
    first = config.pretrain or config
    if first.model.scratch is not None:
        return _scratch(first.model.scratch, first.tokens)
    base = base or first.model.base
    if base in KNOWN and not Path(base).is_dir():
        return KNOWN[base]
    return read_spec(Path(base) if Path(base).is_dir() else _from_hub(base))


def _from_hub(name: str) -> Path:
    try:
        return Path(hf_hub_download(name, "config.json")).parent
    except (HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled, OSError) as error:
        raise ConfigError(
            f"config.model.base={name!r}: its config.json is not to be had from the hub ({str(error).splitlines()[0]}); "
            "give a folder that holds one, weights are not needed"
        ) from error


def _scratch(sizes: Scratch, tokens: Tokens) -> Spec:
    """Sizes as configured; a tokenizer that is still to be trained has at most `tokens.vocabulary` pieces."""
    vocab = (
        read_tokenizer(Path(tokens.tokenizer)).get_vocab_size()
        if tokens.tokenizer
        else tokens.vocabulary
    )
    return Spec(vocab=vocab, epsilon=1e-5, bos=1, eos=2, **dataclasses.asdict(sizes))
