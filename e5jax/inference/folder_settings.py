"""What a folder says about how its model embeds: tokens, pooling, modules behind it, prompts, similarity.

Where there is a `modules.json`, the folder means what sentence-transformers makes of it, or is refused by name. Without one, texts
are embedded as E5-Mistral does it: BOS, text, EOS, the last token, unit length.
"""

from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Float

from e5jax.config import Dtype
from e5jax.data.tokenizer import E5, Frame, Templates, read_frame
from e5jax.errors import ConfigError
from e5jax.inference.vector_quantization import Ranges, read_ranges
from e5jax.jsonl import flag, positive, read_object
from e5jax.model.families import read_positions, read_spec
from e5jax.model.folder import MODULES, file_of
from e5jax.model.modules import NORMALIZE, Module, read_modules, read_pooling

DEFAULT_LIMIT = 512  # tokens a text, when the folder does not say
PROMPTS = "config_sentence_transformers.json"
TEMPLATES = "e5jax_templates"  # in that file, beside prompts that one task is put into
BODY = "sentence_bert_config.json"

Similarity = Literal["cosine", "dot", "euclidean", "manhattan"]
SIMILARITIES: tuple[Similarity, ...] = ("cosine", "dot", "euclidean", "manhattan")


# Keys of sentence_bert_config.json that change nothing here, and values of others that change nothing.
_IGNORED = {"max_seq_length", "do_lower_case", "unpad_inputs"}
_HARMLESS: dict[str, tuple[Any, ...]] = {
    "transformer_task": ("feature-extraction",),
    "module_output_name": ("token_embeddings",),
    "modality_config": (
        {"text": {"method": "forward", "method_output_name": "last_hidden_state"}},
    ),
    "processing_kwargs": (None, {}),
    "query_length": (None,),
    "document_length": (None,),
    "query_expansion": (None,),
    "tokenizer_name_or_path": (None,),
    **{
        f"{name}_{kind}": (None, {})
        for name in ("model", "tokenizer", "processor", "config")
        for kind in ("args", "kwargs")
    },
}


class Settings(NamedTuple):
    """What a folder says about how its model embeds."""

    pooling: str  # modes as `model.pooling` has them, several joined with "+"
    limit: int
    prompts: dict[str, str]
    dtype: str
    dimensions: int | None  # leading ones that are kept; None: all
    ranges: dict[int, Ranges]  # of int8 and uint8, by dimensions
    templates: Templates = E5
    modules: tuple[Module, ...] = (NORMALIZE,)  # behind pooling
    similarity: Similarity = "cosine"
    include_prompt: bool = True  # False: the tokens of the prompt are not pooled
    bare: str = ""  # prompt of queries without an instruction
    default_prompt: str = ""  # of texts that are encoded without instruction and prompt
    lower: bool = False  # texts are lower-cased
    frame: Frame | None = None  # what the tokenizer puts around a text; None: BOS and EOS
    renormalises: bool = False  # what `dimensions` keeps of unit vectors is normalised again; sentence-transformers leaves it

    @property
    def normalises(self) -> bool:
        """Whether the modules give vectors of length 1. What `dimensions` leaves of them is shorter."""
        return bool(self.modules) and self.modules[-1].kind == "Normalize"

    @property
    def inner(self) -> tuple[Module, ...]:
        """The modules before the last normalisation."""
        last = max(
            (number for number, module in enumerate(self.modules, 1) if module.kind != "Normalize"),
            default=0,
        )
        return self.modules[:last]


def read_settings(folder: Path) -> Settings:
    """Reads the sentence-transformers files, an adapter's own before its base's. Raises ConfigError for what is not supported."""

    def read(name: str) -> dict:
        path = file_of(folder, name)
        return read_object(path) if path.is_file() else {}

    config, prompts, body = read("config.json"), read(PROMPTS), read(BODY)
    templates = _templates(prompts.get(TEMPLATES), prompts, folder)
    common = {
        "prompts": _prompts(prompts, folder),
        "dtype": _dtype(config, folder),
        "dimensions": positive(prompts, "truncate_dim", f"{folder}/{PROMPTS}"),
        "ranges": read_ranges(folder),
        "templates": templates,
        "bare": "" if TEMPLATES in prompts else _prompts(prompts, folder).get("query", ""),
        "default_prompt": _default_prompt(prompts, templates, folder),
    }
    longest = positive(body, "max_seq_length", f"{folder}/{BODY}")
    if not file_of(folder, MODULES).is_file():
        pooling = read_pooling(
            read("1_Pooling/config.json"), f"{folder}/1_Pooling/config.json", "lasttoken"
        )
        return Settings(pooling.modes, longest or DEFAULT_LIMIT, **common)
    _check_body(body, folder)
    kind = prompts.get("model_type", "SentenceTransformer")
    if kind != "SentenceTransformer":
        raise ConfigError(
            f"{folder}/{PROMPTS}: model_type={kind!r}; only SentenceTransformer is supported"
        )
    tokens = read("tokenizer_config.json")
    pooling, modules = read_modules(folder, read_spec(folder).hidden)
    return Settings(
        pooling.modes,
        longest or _limit(tokens, folder),
        **common,
        modules=modules,
        similarity=_similarity(prompts),
        include_prompt=pooling.include_prompt,
        lower=flag(body, "do_lower_case", False, f"{folder}/{BODY}"),
        frame=read_frame(file_of(folder, "tokenizer.json"), tokens),
    )


def similarity(
    kind: Similarity, a: Float[np.ndarray, "q d"], b: Float[np.ndarray, "p d"]
) -> Float[np.ndarray, "q p"]:
    """Of each vector with each, as sentence-transformers computes it: a distance is negative."""
    if kind == "cosine":
        a, b = (x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12) for x in (a, b))
    if kind in ("cosine", "dot"):
        return a @ b.T
    difference = [np.abs(one - b) for one in a]
    sums = [
        np.sqrt(np.sum(np.square(rows), axis=1)) if kind == "euclidean" else np.sum(rows, axis=1)
        for rows in difference
    ]
    return -np.array(sums, np.float32).reshape(len(a), len(b))


# --- prompts, similarity, tokens ---------------------------------------------------------------------------------


def _prompts(values: dict, folder: Path) -> dict[str, str]:
    prompts = values.get("prompts") or {}
    if not isinstance(prompts, dict) or not all(
        text is None or isinstance(text, str) for text in prompts.values()
    ):
        raise ConfigError(f"{folder}/{PROMPTS}: prompts={prompts!r}; must be texts by name")
    return {name: text or "" for name, text in prompts.items()}


def _default_prompt(values: dict, templates: Templates, folder: Path) -> str:
    """Of texts that come without any; in a folder with templates of its own that of documents."""
    name = values.get("default_prompt_name")
    if name is None:
        return templates.document if TEMPLATES in values else ""
    prompts = {"query": "", "document": "", **_prompts(values, folder)}
    if name not in prompts:
        raise ConfigError(
            f"{folder}/{PROMPTS}: default_prompt_name={name!r}; its prompts are {', '.join(prompts)}"
        )
    return prompts[name]


def _templates(values: object, prompts: dict, folder: Path) -> Templates:
    if values is None:
        return Templates(document=_prompts(prompts, folder).get("document", ""))
    if not isinstance(values, dict) or not all(
        name in Templates._fields and isinstance(text, str) for name, text in values.items()
    ):
        raise ConfigError(
            f"{folder}/{PROMPTS}: {TEMPLATES} are {values!r}; they are texts, query and document"
        )
    return Templates(**values)


def _similarity(values: dict) -> Similarity:
    name = values.get("similarity_fn_name")
    return (
        name if name in SIMILARITIES else "cosine"
    )  # as sentence-transformers does with other names


def _check_body(config: dict, folder: Path) -> None:
    """Raises ConfigError for what would change tokens or states in a way that is not known here."""
    for name, value in config.items():
        if name in _IGNORED:
            continue
        if name not in _HARMLESS or value not in _HARMLESS[name]:
            raise ConfigError(
                f"{folder}/{BODY}: {name}={value!r} is not supported; remove it if the model does without"
            )


def _limit(tokens: dict, folder: Path) -> int:
    """Most tokens of a text: the tokenizer's own number, but not more than the model has positions."""
    value, positions = tokens.get("model_max_length"), read_positions(folder)
    if value is None:
        return positions
    if isinstance(value, bool) or not isinstance(value, int | float) or not value >= 1:
        raise ConfigError(
            f"{folder}/tokenizer_config.json: model_max_length={value!r}; must be a whole number of at least 1"
        )
    return int(min(value, positions))


def _dtype(config: dict, folder: Path) -> Dtype:
    value = config.get("dtype") or config.get("torch_dtype") or "float32"
    name = str(value).removeprefix("torch.")
    if name not in ("float32", "bfloat16", "float16"):
        raise ConfigError(
            f"{folder}/config.json: dtype={value!r}; supported are float32, bfloat16, float16"
        )
    return "float32" if name == "float32" else "bfloat16"
