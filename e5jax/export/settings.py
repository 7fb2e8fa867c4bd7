"""The JSON files of an exported folder: what transformers, PEFT and sentence-transformers read besides weights."""

from tokenizers import Tokenizer
from tokenizers.processors import TemplateProcessing

from e5jax.config import TARGETS, Training
from e5jax.data.tokenizer import E5, Templates, TextTokenizer
from e5jax.export.trained_model import Choice, TrainedModel
from e5jax.export.usage import base_name
from e5jax.inference.folder_settings import TEMPLATES
from e5jax.model.families import FAMILIES, read_positions
from e5jax.model.folder import ADAPTER
from e5jax.model.spec import Spec

POSITIONS = (
    32_768  # of a model from scratch, as many as Mistral's: its rotary embedding sets no end
)
MODULES = {
    "0": ("", "Transformer"),
    "1": ("1_Pooling", "Pooling"),
    "2": ("2_Normalize", "Normalize"),
}


def settings(subject: TrainedModel, choice: Choice) -> dict[str, dict | list]:
    """Every JSON file of the folder, by its path, besides tokenizer.json."""
    run, spec, limit = subject.run, subject.made.spec, subject.tokenizer.limit
    if choice.format == "merged":
        own = {
            "config.json": FAMILIES[spec.family].config_from_spec(
                spec, _positions(subject), run.export.dtype
            )
        }
    else:
        own = {ADAPTER: adapter_config(run, base_name(subject, choice))}
    return {
        **own,
        **_tokenizer(subject.tokenizer),
        **_modules(run, spec, limit, subject.tokenizer.templates),
    }


def _positions(subject: TrainedModel) -> int:
    """Those of the base; a run that extends them, or starts from scratch, has at least its own limit."""
    return max(read_positions(subject.base) if subject.base else POSITIONS, subject.tokenizer.limit)


def adapter_config(run: Training, base: str) -> dict:
    """The adapter_config.json of PEFT; the scale is alpha / rank."""
    assert run.lora is not None, "`check` refuses the format without adapters"
    return {
        "peft_type": "LORA",
        "task_type": "FEATURE_EXTRACTION",
        "base_model_name_or_path": base,
        "r": run.lora.rank,
        "lora_alpha": run.lora.alpha,
        "lora_dropout": run.lora.dropout,
        "target_modules": [f"{target}_proj" for target in TARGETS if target in run.lora.targets],
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "init_lora_weights": True,
        "modules_to_save": None,
        "use_dora": False,
        "use_rslora": False,
    }


def _tokenizer(tokenizer: TextTokenizer) -> dict[str, dict | list]:
    bos, eos = tokenizer.pieces
    return {
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
            "model_max_length": tokenizer.limit,
            "clean_up_tokenization_spaces": False,
        },
        "special_tokens_map.json": {"bos_token": bos, "eos_token": eos, "pad_token": eos},
    }


def _modules(run: Training, spec: Spec, limit: int, templates: Templates) -> dict[str, dict | list]:
    return {
        "modules.json": [
            {
                "idx": int(name),
                "name": name,
                "path": path,
                "type": f"sentence_transformers.models.{kind}",
            }
            for name, (path, kind) in MODULES.items()
        ],
        "sentence_bert_config.json": {"max_seq_length": limit, "do_lower_case": False},
        "1_Pooling/config.json": {
            "word_embedding_dimension": spec.hidden,
            "pooling_mode_cls_token": False,
            "pooling_mode_mean_tokens": run.model.pooling == "mean",
            "pooling_mode_max_tokens": False,
            "pooling_mode_mean_sqrt_len_tokens": False,
            "pooling_mode_weightedmean_tokens": run.model.pooling == "weighted_mean",
            "pooling_mode_lasttoken": run.model.pooling == "last",
            "include_prompt": True,
        },
        "config_sentence_transformers.json": {
            "model_type": "SentenceTransformer",
            "prompts": {
                "query": templates.prefix(run.export.task),
                "document": templates.prefix(None),
            },
            "default_prompt_name": None,
            "similarity_fn_name": "cosine",
            **({"truncate_dim": run.export.dimensions} if run.export.dimensions else {}),
            **({} if templates == E5 else {TEMPLATES: templates._asdict()}),
        },
    }


def with_bos_and_eos(tokenizer: TextTokenizer) -> Tokenizer:
    """The tokenizer with a post-processor that gives BOS, text, EOS, which transformers 5 obeys whatever its settings say."""
    copy = Tokenizer.from_str(tokenizer.tokenizer.to_str())
    bos, eos = tokenizer.pieces
    copy.post_processor = TemplateProcessing(
        single=f"{bos} $A {eos}",
        pair=f"{bos} $A {eos} {bos}:1 $B:1 {eos}:1",
        special_tokens=[(bos, tokenizer.bos), (eos, tokenizer.eos)],
    )
    return copy
