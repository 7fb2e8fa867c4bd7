"""Odd model folders by a seeded generator: `Embedder` gives what sentence-transformers gives, or refuses in one line.

python -m tests.inference.odd_models --count=200 --seed=0 tries so many and prints a table; the suite tries a few.
"""

import argparse
import json
import random
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import transformers
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense
from sentence_transformers.sentence_transformer.modules import (
    Dropout,
    LayerNorm,
    Normalize,
    Pooling,
    Transformer,
)
from tokenizers import AddedToken, Tokenizer, normalizers, processors

from e5jax.data.tokenizer import train_tokenizer
from e5jax.errors import ConfigError
from e5jax.inference.embedder import Embedder

HIDDEN = 32
TEXTS = [
    "how to READ a file",
    "a",
    "the </s> quick brown fox jumps over a lazy dog " * 3,
    "Größe 日本 🙂",
    "word " * 60,
]
PROMPTS = {"query": "Instruct: find it\nQuery: ", "document": "passage: ", "other": "Other "}
WORDS = [*TEXTS, *PROMPTS.values()] * 3
POOLINGS = ("cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken")
ACTIVATIONS = (
    "Identity",
    "Tanh",
    "ReLU",
    "GELU",
    "SiLU",
    "Sigmoid",
    "LeakyReLU",
    "ELU",
    "Mish",
    "Softplus",
    "SELU",
    "Hardtanh",
)
SPECIAL = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "</s>"}
TOLERANCE = 1e-5  # of the largest number of a vector, or of 1


class Case(NamedTuple):
    """What one folder is made of."""

    pooling: tuple[str, ...]
    include_prompt: bool
    behind: tuple[str, ...]  # Dense, LayerNorm, Normalize, Dropout
    activation: str
    residual: bool
    default_prompt: str | None
    similarity: str | None
    dimensions: int | None
    frame: str  # ids around a text: both, bos, eos, none
    old: bool  # names and flags of sentence-transformers before 6
    family: str
    oddities: tuple[str, ...]  # keys of ODDITIES


def draw(rng: random.Random) -> Case:
    """One case. Half of them have an oddity."""
    return Case(
        tuple(rng.sample(POOLINGS, rng.choice((1, 1, 1, 2, 3)))),
        rng.random() < 0.6,
        tuple(
            rng.choice(("Dense", "LayerNorm", "Normalize", "Dropout"))
            for _ in range(rng.choice((0, 1, 1, 2, 3)))
        ),
        rng.choice(ACTIVATIONS),
        rng.random() < 0.3,
        rng.choice((None, None, "query", "other")),
        rng.choice((None, "cosine", "dot", "euclidean", "manhattan")),
        rng.choice((None, None, None, 8, 1_000)),
        rng.choice(("both", "both", "bos", "eos", "none")),
        rng.random() < 0.4,
        rng.choice(("mistral", "llama")),
        tuple(rng.sample(sorted(ODDITIES), rng.choice((0, 0, 1, 1, 2)))),
    )


# --- oddities ----------------------------------------------------------------------------------------------------


def edit(folder: Path, name: str, **values: object) -> None:
    path = folder / name
    held = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    path.write_text(json.dumps(held | values), encoding="utf-8")


def drop(folder: Path, name: str, *keys: str) -> None:
    held = json.loads((folder / name).read_text(encoding="utf-8"))
    (folder / name).write_text(
        json.dumps({key: value for key, value in held.items() if key not in keys}), encoding="utf-8"
    )


def module(folder: Path, number: int, **values: object) -> None:
    entries = json.loads((folder / "modules.json").read_text(encoding="utf-8"))
    entries[number] |= values
    (folder / "modules.json").write_text(json.dumps(entries), encoding="utf-8")


def insert(folder: Path, number: int, kind: str) -> None:
    entries = json.loads((folder / "modules.json").read_text(encoding="utf-8"))
    entries.insert(
        number,
        {
            "idx": 9,
            "name": "9",
            "path": f"9_{kind}",
            "type": f"sentence_transformers.models.{kind}",
        },
    )
    (folder / "modules.json").write_text(json.dumps(entries), encoding="utf-8")


def token(folder: Path, content: str, number: int) -> None:
    path = folder / "tokenizer.json"
    held = json.loads(path.read_text(encoding="utf-8"))
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized", "special"), False)
    held["added_tokens"].append({"id": number, "content": content, **flags})
    path.write_text(json.dumps(held), encoding="utf-8")


CONFIG, BERT, PLAIN, POOL = (
    "config.json",
    "sentence_bert_config.json",
    "config_sentence_transformers.json",
    "1_Pooling/config.json",
)
ODDITIES: dict[str, Callable[[Path], None]] = {
    "eos list": lambda folder: edit(folder, CONFIG, eos_token_id=[2, 0]),
    "eos null": lambda folder: edit(folder, CONFIG, eos_token_id=None),
    "bos null": lambda folder: edit(folder, CONFIG, bos_token_id=None),
    "no ids": lambda folder: drop(folder, CONFIG, "bos_token_id", "eos_token_id"),
    "epsilon as text": lambda folder: edit(folder, CONFIG, rms_norm_eps="1e-06"),
    "layers as text": lambda folder: edit(folder, CONFIG, num_hidden_layers="2"),
    "no positions": lambda folder: drop(folder, CONFIG, "max_position_embeddings"),
    "other activation": lambda folder: edit(folder, CONFIG, hidden_act="gelu"),
    "scaled rope": lambda folder: edit(
        folder, CONFIG, rope_parameters={"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}
    ),
    "heads zero": lambda folder: edit(folder, CONFIG, num_attention_heads=0),
    "kind is a list": lambda folder: edit(folder, CONFIG, model_type=["mistral"]),
    "encoder": lambda folder: edit(folder, CONFIG, model_type="bert"),
    "lower": lambda folder: edit(folder, BERT, do_lower_case=True),
    "limit": lambda folder: edit(folder, BERT, max_seq_length=12),
    "limit beyond positions": lambda folder: edit(folder, BERT, max_seq_length=4_096),
    "limit null": lambda folder: edit(folder, BERT, max_seq_length=None),
    "tokenizer limit": lambda folder: edit(folder, "tokenizer_config.json", model_max_length=9),
    "tokenizer limit is huge": lambda folder: edit(
        folder, "tokenizer_config.json", model_max_length=int(1e30)
    ),
    "split special": lambda folder: edit(
        folder, "tokenizer_config.json", split_special_tokens=True
    ),
    "cut left": lambda folder: edit(
        folder, "tokenizer_config.json", truncation_side="left", model_max_length=9
    ),
    "adds eos": lambda folder: edit(
        folder, "tokenizer_config.json", add_bos_token=False, add_eos_token=True
    ),
    "adds nothing": lambda folder: edit(folder, "tokenizer_config.json", add_bos_token=False),
    "token beyond": lambda folder: token(folder, "brown", 1_000),
    "body arguments": lambda folder: edit(folder, BERT, tokenizer_args={"model_max_length": 7}),
    "chat": lambda folder: edit(
        folder, BERT, modality_config={"message": {"method": "forward", "method_output_name": "x"}}
    ),
    "strange body key": lambda folder: edit(folder, BERT, normalise_twice=True),
    "query length": lambda folder: edit(folder, BERT, query_length=5),
    "prompt null": lambda folder: edit(
        folder, PLAIN, prompts={"query": None, "document": "passage: "}, default_prompt_name=None
    ),
    "prompts null": lambda folder: edit(folder, PLAIN, prompts=None, default_prompt_name=None),
    "prompts a list": lambda folder: edit(folder, PLAIN, prompts=["query"]),
    "unknown default prompt": lambda folder: edit(folder, PLAIN, default_prompt_name="nowhere"),
    "unknown similarity": lambda folder: edit(folder, PLAIN, similarity_fn_name="maxsim"),
    "sparse": lambda folder: edit(folder, PLAIN, model_type="SparseEncoder"),
    "no prompts file": lambda folder: (folder / PLAIN).unlink(),
    "no body file": lambda folder: (folder / BERT).unlink(),
    "no pooling file": lambda folder: (folder / POOL).unlink(),
    "pooling width": lambda folder: edit(
        folder, POOL, embedding_dimension=7, word_embedding_dimension=7
    ),
    "unknown pooling": lambda folder: edit(folder, POOL, pooling_mode="attention"),
    "strange pooling key": lambda folder: edit(folder, POOL, weights=[1, 2]),
    "pooling not JSON": lambda folder: (folder / POOL).write_text("{"),
    "modules not JSON": lambda folder: (folder / "modules.json").write_text("[") and None,
    "modules an object": lambda folder: (folder / "modules.json").write_text("{}") and None,
    "modules without paths": lambda folder: (
        (folder / "modules.json").write_text('[{"idx": 0}]') and None
    ),
    "custom module": lambda folder: module(folder, 1, type="custom_code.Pooling"),
    "module elsewhere": lambda folder: module(folder, 1, path="../1_Pooling"),
    "two of one name": lambda folder: module(folder, 1, name="0"),
    "word weights": lambda folder: insert(folder, 1, "WordWeights"),
    "LSTM": lambda folder: insert(folder, 1, "LSTM"),
    "normalised first": lambda folder: insert(folder, 1, "Normalize"),
    "lost module": lambda folder: insert(folder, 2, "Dense"),
    "no tokenizer config": lambda folder: (folder / "tokenizer_config.json").unlink(),
    "no tokenizer": lambda folder: (folder / "tokenizer.json").unlink(),
    "no weights": lambda folder: (folder / "model.safetensors").unlink(),
}

# Those that sentence-transformers reads as well: a folder with no others must not be refused.
READABLE = {
    *(
        "eos list",
        "eos null",
        "bos null",
        "no ids",
        "no positions",
        "lower",
        "limit",
        "limit beyond positions",
        "limit null",
    ),
    *(
        "tokenizer limit",
        "tokenizer limit is huge",
        "split special",
        "adds eos",
        "adds nothing",
        "prompt null",
        "no body file",
    ),
    *("unknown similarity",),
}


# --- folders -----------------------------------------------------------------------------------------------------


def tokenizer(frame: str) -> transformers.PreTrainedTokenizerFast:
    """With a post-processor that puts BOS and EOS, one of them or none around a text."""
    made: Tokenizer = train_tokenizer(WORDS, 400)
    made.normalizer = normalizers.Sequence(
        [normalizers.NFC()]
    )  # lower-casing is for a folder to ask for
    parts = {"both": "<s> $A </s>", "bos": "<s> $A", "eos": "$A </s>", "none": "$A"}
    made.add_special_tokens([AddedToken(piece, special=True) for piece in ("<s>", "</s>")])
    made.post_processor = processors.TemplateProcessing(
        single=parts[frame], special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    return transformers.PreTrainedTokenizerFast(tokenizer_object=made, **SPECIAL)


def write(case: Case, folder: Path, seed: int) -> None:
    """The folder, as sentence-transformers saves it, then with its oddities."""
    torch.manual_seed(seed)
    pieces = tokenizer(case.frame)
    config = {"mistral": transformers.MistralConfig, "llama": transformers.LlamaConfig}[
        case.family
    ](
        vocab_size=len(pieces),
        hidden_size=HIDDEN,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
    )
    model = transformers.AutoModel.from_config(config)
    for (
        parameter
    ) in model.parameters():  # unlike fresh ones, these weights tell one text from another
        torch.nn.init.normal_(parameter, 1.0 if parameter.ndim == 1 else 0.0, 0.2)
    base = folder.with_name(f"{folder.name}-base")
    model.save_pretrained(base)
    pieces.save_pretrained(base)
    made = SentenceTransformer(
        modules=[Transformer(str(base)), *modules(case)],
        prompts=dict(PROMPTS),
        default_prompt_name=case.default_prompt,
        similarity_fn_name=case.similarity,
        truncate_dim=case.dimensions,
        device="cpu",
    )
    made.save(str(folder), create_model_card=False)
    if case.old:
        _as_before(folder, case)
    for name in case.oddities:
        ODDITIES[name](folder)


def modules(case: Case) -> list[torch.nn.Module]:
    """Pooling and what is behind it, each of the width that it gets."""
    made: list[torch.nn.Module] = [Pooling(HIDDEN, case.pooling, case.include_prompt)]
    width = HIDDEN * len(case.pooling)
    for kind in case.behind:
        if kind == "Dense":
            outputs = width if case.residual and len(made) % 2 else 24
            activation = getattr(torch.nn, case.activation)()
            made.append(
                Dense(
                    width,
                    outputs,
                    bias=len(made) % 2 == 1,
                    activation_function=activation,
                    use_residual=case.residual,
                )
            )
            width = outputs
        elif kind == "LayerNorm":
            made.append(LayerNorm(width))
            torch.nn.init.normal_(made[-1].norm.weight, 1.0, 0.3)
            torch.nn.init.normal_(made[-1].norm.bias, 0.0, 0.3)
        else:
            made.append(Normalize() if kind == "Normalize" else Dropout(0.5))
    return made


def _as_before(folder: Path, case: Case) -> None:
    """Names and flags of versions before 6; flags have no order of their own."""
    entries = json.loads((folder / "modules.json").read_text(encoding="utf-8"))
    for entry in entries:
        entry["type"] = f"sentence_transformers.models.{entry['type'].rpartition('.')[2]}"
    (folder / "modules.json").write_text(json.dumps(entries), encoding="utf-8")
    names = {
        "cls": "cls_token",
        "max": "max_tokens",
        "mean": "mean_tokens",
        "weightedmean": "weightedmean_tokens",
    }
    flags = {f"pooling_mode_{names.get(mode, mode)}": mode in case.pooling for mode in POOLINGS}
    config = {"word_embedding_dimension": HIDDEN, **flags, "include_prompt": case.include_prompt}
    (folder / POOL).write_text(json.dumps(config), encoding="utf-8")
    (folder / BERT).write_text(
        json.dumps({"max_seq_length": 64, "do_lower_case": False}), encoding="utf-8"
    )


def copied(folder: Path, to: Path) -> Path:
    """A copy to make odd."""
    shutil.copytree(folder, to)
    return to


# --- comparison --------------------------------------------------------------------------------------------------


def theirs(folder: Path) -> dict[str, np.ndarray]:
    """What sentence-transformers makes of it, in float32."""
    model = SentenceTransformer(
        str(folder), device="cpu", local_files_only=True, model_kwargs={"dtype": torch.float32}
    )
    found = {
        "encode": model.encode(TEXTS),
        "one": model.encode(TEXTS[0]),
        "query": model.encode_query(TEXTS),
        "document": model.encode_document(TEXTS),
    }
    return found | {"similarity": np.asarray(model.similarity(found["query"], found["document"]))}


def ours(folder: Path) -> dict[str, np.ndarray]:
    """What `Embedder` makes of it."""
    model = Embedder.from_pretrained(folder, dtype="float32")
    found = {
        "encode": model.encode(TEXTS),
        "one": model.encode(TEXTS[0]),
        "query": model.encode_query(TEXTS),
        "document": model.encode_document(TEXTS),
    }
    return found | {"similarity": model.similarity(found["query"], found["document"])}


def verdict(case: Case, folder: Path) -> str:
    """`equal`, `refused: ...`, `read here only: ...` or `FAULT, ...`. Raises whatever is not a ConfigError."""
    try:
        mine = ours(folder)
    except ConfigError as error:
        line = str(error)
        if "\n" in line:
            return f"FAULT, several lines: {line}"
        readable = set(case.oddities) <= READABLE
        return f"FAULT, refused: {line}" if readable and _loads(folder) else f"refused: {line}"
    try:
        wanted = theirs(folder)
    except Exception as error:
        return f"read here only: {str(error).splitlines()[0]}"
    for name, expected in wanted.items():
        if mine[name].shape != expected.shape:
            return f"FAULT, {name}: shape {mine[name].shape}, not {expected.shape}"
        difference, size = np.abs(mine[name] - expected).max(), max(1.0, np.abs(expected).max())
        if not difference <= TOLERANCE * size:
            return f"FAULT, {name}: differs by {difference:.2g} of {size:.2g}"
    return "equal"


def _loads(folder: Path) -> bool:
    try:
        theirs(folder)
    except Exception:
        return False
    return True


def tried(numbers: range, seed: int, root: Path) -> Iterator[tuple[Case, str]]:
    """The cases with these numbers, and their verdicts."""
    for number in numbers:
        case = draw(random.Random(f"{seed} {number}"))
        folder = root / f"{number:03}"
        try:
            write(case, folder, seed * 1_000 + number)
        except (
            FileNotFoundError,
            KeyError,
            IndexError,
            ValueError,
        ) as error:  # two oddities that do not go together
            yield case, f"not made: {error}"
            continue
        yield case, _verdict(case, folder)


def _verdict(case: Case, folder: Path) -> str:
    try:
        return verdict(case, folder)
    except Exception as error:
        return f"FAULT, {type(error).__name__}: {error}"


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    transformers.utils.logging.set_verbosity_error()
    tally: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as root:
        numbers = range(options.first, options.first + options.count)
        for number, (case, said) in zip(
            numbers, tried(numbers, options.seed, Path(root)), strict=True
        ):
            detail: Any = case if said.startswith("FAULT") else case.oddities
            print(number, said[:200].replace(root, ""), detail, flush=True)
            tally[said.partition(":")[0].partition(",")[0]] += 1
    print(dict(tally))
    return int(tally["FAULT"] > 0)


if __name__ == "__main__":
    raise SystemExit(main())
