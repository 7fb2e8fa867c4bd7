"""What is exported, and how: a checkpoint's numbers with all that gives them their meaning."""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal, NamedTuple

from e5jax.config import Training
from e5jax.data.tokenizer import TextTokenizer
from e5jax.model.hf_weights import Numbers
from e5jax.model.model_def import ModelDef

Format = Literal["merged", "adapter"]


class TrainedModel(NamedTuple):
    """A trained model. Without adapters `parameters` has every weight, with them the base has the others."""

    run: Training
    base: Path | None
    made: ModelDef
    parameters: Mapping[str, Numbers]  # what was trained, float32
    tokenizer: TextTokenizer
    step: int


class Choice(NamedTuple):
    """What kind of folder. `base_name` is what an adapter folder calls its base; empty: as the run does."""

    format: Format = "merged"
    base_name: str = ""
    shard_bytes: int | None = None  # of a file of weights at most
    verify: bool = True
