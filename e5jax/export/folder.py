"""From a checkpoint to a Hugging Face folder that transformers and sentence-transformers load with no remote code."""

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import jax
import numpy as np
from tokenizers import Tokenizer
from tokenizers.processors import TemplateProcessing

from e5jax.checkpoint import Checkpoints
from e5jax.config import Mesh, Training
from e5jax.errors import ConfigError
from e5jax.export.card import model_card
from e5jax.mesh import make_mesh
from e5jax.model import hf
from e5jax.model.blueprint import Blueprint, blueprint
from e5jax.model.dense import fold
from e5jax.model.families import FAMILIES
from e5jax.model.spec import Spec
from e5jax.tokens import TextTokenizer, query_text
from e5jax.workdir import Workdir, complete


def export(run: Training, base: Path | None, spec: Spec, tokenizer: TextTokenizer, workdir: Workdir, output: Path) -> int:
    """Merges the newest checkpoint of `workdir` into its base and writes `output`. Returns the step exported."""
    place = workdir.checkpoints_of(run.checkpoint)
    with Checkpoints(place) as checkpoints:
        step = checkpoints.newest()
        if step is None:
            raise ConfigError(f"--workdir={workdir.root}: no sound checkpoint in {place}; train first")
        made = _blueprint(run, spec)
        mesh = make_mesh(Mesh(1, 1, 1), jax.local_devices()[:1])
        parameters = checkpoints.restore_parameters(step, made.abstract(made.trained, mesh, "float32"))
    write(run, base, made, parameters, tokenizer, step, output)
    return step


def export_untrained(run: Training, spec: Spec, tokenizer: TextTokenizer, output: Path) -> None:
    """The random weights that a run from scratch starts from: what training is compared with."""
    made = _blueprint(run, spec)
    mesh = make_mesh(Mesh(1, 1, 1), jax.local_devices()[:1])
    write(run, None, made, made.initialise(made.trained, mesh, run.seed), tokenizer, 0, output)


def _blueprint(run: Training, spec: Spec) -> Blueprint:
    # It is never run: the kernel is of no account.
    return blueprint(spec, run.lora, dtype=run.model.dtype, remat=run.model.remat, kernel="xla")


def write(
    run: Training,
    base: Path | None,
    made: Blueprint,
    parameters: Mapping[str, jax.Array],
    tokenizer: TextTokenizer,
    step: int,
    output: Path,
) -> None:
    """Writes the folder whole or not at all."""
    with complete(output) as folder:
        folder.mkdir()
        hf.save(folder, _tensors(base, made, parameters), run.export.dtype)
        for name, content in settings(run, made.spec, tokenizer).items():
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        (folder / "tokenizer.json").write_text(with_bos_and_eos(tokenizer).to_str(pretty=True), encoding="utf-8")
        (folder / "2_Normalize").mkdir()
        (folder / "README.md").write_text(model_card(run, made.spec, step), encoding="utf-8")


def _tensors(
    base: Path | None, made: Blueprint, parameters: Mapping[str, jax.Array]
) -> Iterator[tuple[str, tuple[int, ...], Callable[[], np.ndarray]]]:
    """Every tensor of the merged model: the base's own, the trained one, or both folded together in float32."""
    found = hf.headers(base) if base else {}
    for name, leaf in made.leaves.items():
        if leaf.is_adapter:
            continue
        lora = made.lora.get(name.split("/")[-2]) if name.endswith("/kernel") else None
        for layer, stored in enumerate(hf.names_of(made.spec, name)):

            def get(
                name: str = name, layer: int = layer, stored: str = stored, scale: float = lora.scale if lora else 0.0
            ) -> np.ndarray:
                if name in parameters:
                    return hf.to_stored(name, parameters[name], layer)
                kernel = hf.read(found[stored])
                if not scale:
                    return kernel
                a, b = (np.asarray(parameters[name.replace("kernel", factor)][layer]) for factor in ("lora_a", "lora_b"))
                return fold(kernel.astype(np.float32).T, a, b, scale).T

            yield stored, hf.stored_shape(name, leaf.shape), get


def with_bos_and_eos(tokenizer: TextTokenizer) -> Tokenizer:
    """The tokenizer with a post-processor that gives `<s> … </s>`, which transformers 5 obeys whatever its settings say."""
    copy = Tokenizer.from_str(tokenizer.tokenizer.to_str())
    bos, eos = (copy.id_to_token(token) for token in (tokenizer.bos, tokenizer.eos))
    copy.post_processor = TemplateProcessing(
        single=f"{bos} $A {eos}",
        pair=f"{bos} $A {eos} {bos}:1 $B:1 {eos}:1",
        special_tokens=[(bos, tokenizer.bos), (eos, tokenizer.eos)],
    )
    return copy


def settings(run: Training, spec: Spec, tokenizer: TextTokenizer) -> dict[str, dict | list]:
    """Every JSON file of the folder besides weights and tokenizer.json."""
    bos, eos = (tokenizer.tokenizer.id_to_token(token) for token in (tokenizer.bos, tokenizer.eos))
    limit = tokenizer.limit
    return {
        "config.json": FAMILIES[spec.family].config_from_spec(spec, limit, run.export.dtype),
        "tokenizer_config.json": {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": bos,
            "eos_token": eos,
            "pad_token": eos,  # masked out; the decoder has no token of its own for it
            "add_bos_token": True,
            "add_eos_token": True,
            "split_special_tokens": True,  # "</s>" inside a text is text
            "padding_side": "right",
            "truncation_side": "right",
            "model_max_length": limit,
            "clean_up_tokenization_spaces": False,
        },
        "special_tokens_map.json": {"bos_token": bos, "eos_token": eos, "pad_token": eos},
        "modules.json": [
            {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
            {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
            {"idx": 2, "name": "2", "path": "2_Normalize", "type": "sentence_transformers.models.Normalize"},
        ],
        "sentence_bert_config.json": {"max_seq_length": limit, "do_lower_case": False},
        "1_Pooling/config.json": {
            "word_embedding_dimension": spec.hidden,
            "pooling_mode_cls_token": False,
            "pooling_mode_mean_tokens": run.model.pooling == "mean",
            "pooling_mode_max_tokens": False,
            "pooling_mode_mean_sqrt_len_tokens": False,
            "pooling_mode_weightedmean_tokens": False,
            "pooling_mode_lasttoken": run.model.pooling == "last",
            "include_prompt": True,
        },
        "config_sentence_transformers.json": {
            "model_type": "SentenceTransformer",
            "prompts": {"query": query_text("", run.export.task), "document": ""},
            "default_prompt_name": None,
            "similarity_fn_name": "cosine",
        },
    }
