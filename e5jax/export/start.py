"""The base of a run as the run starts from it: a folder that sentence-transformers and `Embedder` read alike.

Pooling, prompts, limit, tokenizer and changes of the architecture are the run's. Weights are links to the base's own files:
nothing is copied, and nothing is loaded.
"""

import json
from pathlib import Path

from e5jax.config import Training
from e5jax.data.tokenizer import Templates, TextTokenizer
from e5jax.errors import ConfigError
from e5jax.export.settings import settings, with_bos_and_eos
from e5jax.export.trained_model import Choice, TrainedModel
from e5jax.jsonl import read_object
from e5jax.model import hf_weights
from e5jax.model.adapter import FILE
from e5jax.model.families import read_spec
from e5jax.model.folder import ADAPTER, base_of, file_of
from e5jax.model.model_def import model_def

INDEX = "model.safetensors.index.json"


def write_start(run: Training, base: Path, output: Path) -> None:
    """Writes the folder `output` for a base, which may be an adapter. Raises ConfigError for what is wrong with it.

    Parameters that the run adds are not in it: biases are 0 at first, and rows of new tokens are untrained.
    """
    own = read_spec(base)
    spec = own.changed(run.model)._replace(bias=own.bias)
    file = Path(run.tokens.tokenizer) if run.tokens.tokenizer else file_of(base, "tokenizer.json")
    templates = Templates(run.tokens.query, run.tokens.document)
    tokenizer = TextTokenizer.from_file(file, spec.bos, spec.eos, run.tokens.limit, templates)
    made = model_def(
        spec, None, dtype=run.model.dtype, remat=run.model.remat, kernel="xla"
    )  # it is never run
    contents = settings(TrainedModel(run, base, made, {}, tokenizer, 0), Choice())
    weights = hf_weights.files(base)
    if below := base_of(base):
        if spec != own:
            raise ConfigError(
                f"{base}: is an adapter, and the run changes the model below it, which an adapter folder cannot say"
            )
        contents[ADAPTER] = {
            **read_object(base / ADAPTER),
            "base_model_name_or_path": str(below.absolute()),
        }
        del contents["config.json"]
        weights = [base / FILE]
    output.mkdir(parents=True)
    for name, content in contents.items():
        (output / name).parent.mkdir(exist_ok=True)
        (output / name).write_text(
            json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
        )
    (output / "tokenizer.json").write_text(with_bos_and_eos(tokenizer).to_str(), encoding="utf-8")
    for path in [*weights, *([base / INDEX] if len(weights) > 1 else [])]:
        (output / path.name).symlink_to(path.resolve())
