"""transformers, PEFT, sentence-transformers and `Embedder` make the same ids and vectors of exported folders.

`E5JAX_EXPORT_TEXTS=10000` compares the ids of as many texts for each folder, of more folders; the suite takes few.
"""

import os
import random
import sys
from typing import get_args

import numpy as np
import peft
import pytest
import torch
from sentence_transformers import SentenceTransformer
from transformers import AutoModel, AutoTokenizer

from e5jax.config import Pooling
from e5jax.export.folder import write
from e5jax.export.reference_libraries import by_hand
from e5jax.export.trained_model import Choice
from e5jax.inference.embedder import Embedder
from tests import tiny
from tests.export import small

TEXTS = int(os.environ.get("E5JAX_EXPORT_TEXTS", "0"))
EMBEDDED = 300  # of them
LEAST = {"float32": 0.99999, "bfloat16": 0.9995}
# Depth, grouped and single heads, heads wider than the model, another base and epsilon, no window and a short one.
SHAPES = {
    "as it is": {},
    "one layer": {"layers": 1, "window": None},
    "a head for each": {"kv_heads": 4, "theta": 1e6},
    "one head for all": {"kv_heads": 1, "epsilon": 1e-6},
    "wide heads": {"heads": 2, "kv_heads": 1, "head_size": 64, "window": 5},
    "both directions": {"causal": False, "window": None},
    "both directions in a window": {"causal": False, "window": 6, "layers": 1},
    "narrow and deep": {"hidden": 32, "ff": 96, "layers": 6, "heads": 2, "head_size": 16},
}
# Each shape, format and dtype occurs; all of them together are for the long run.
FEW = [
    ("as it is", "last", "adapter", "bfloat16"),
    ("one layer", "mean", "merged", "bfloat16"),
    ("a head for each", "last", "merged", "float32"),
    ("one head for all", "last", "adapter", "float32"),
    ("wide heads", "weighted_mean", "adapter", "bfloat16"),
    ("both directions", "mean", "merged", "float32"),
    ("narrow and deep", "last", "merged", "bfloat16"),
]
ALL = [
    (shape, pooling, kind, dtype)
    for shape in SHAPES
    for pooling in get_args(Pooling)
    for kind in ("merged", "adapter")
    for dtype in LEAST
]
pytestmark = pytest.mark.filterwarnings(tiny.PEFT_WARNING)


def fuzzed(count: int, seed: int) -> list[str]:
    """Words, special tokens and any characters but halves of surrogate pairs, from nothing to beyond the limit."""
    draw = random.Random(seed)
    pieces = [
        "<s>",
        "</s>",
        "<unk>",
        "Instruct: ",
        "\nQuery: ",
        " ",
        "\n\n",
        "\t",
        "\u200b",
        "\ufeff",
        "é",
        "e\u0301",
        "🙂",
        "\x00",
    ]

    def piece() -> str:
        made = [
            draw.choice(pieces),
            draw.choice(small.WORDS.split()) + " " * draw.randrange(3),
            chr(draw.randrange(0xD800)),
            chr(draw.randrange(0xE000, sys.maxunicode + 1)),
        ]
        return draw.choice(made)

    return [
        "".join(piece() for _ in range(draw.choice([0, 1, 3, 10, 30, 150]))) for _ in range(count)
    ]


@pytest.mark.parametrize(("shape", "pooling", "kind", "dtype"), ALL if TEXTS else FEW)
def test_all_readers_agree_and_the_base_does_not(tmp_path, shape, pooling, kind, dtype):
    spec = small.spec()._replace(**SHAPES[shape])
    base = small.base(tmp_path / "base", spec, pooling)
    subject = small.adapted(base, spec, pooling, dtype)
    folder = tmp_path / "export"
    write(subject, folder, Choice(kind, verify=False))
    texts = fuzzed(TEXTS or 200, seed=len(shape))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ours = Embedder.from_pretrained(folder, dtype="float32")
    theirs = SentenceTransformer(
        str(folder), device="cpu", local_files_only=True, model_kwargs={"dtype": torch.float32}
    )
    assert (
        ours.tokenize(texts)
        == tokenizer(texts, truncation=True).input_ids
        == theirs.tokenizer(texts, truncation=True).input_ids
    )
    prompted = [theirs.prompts["query"] + text for text in texts]
    assert ours.tokenize(texts, small.TASK) == tokenizer(prompted, truncation=True).input_ids

    texts = texts[: EMBEDDED if TEXTS else 12]
    templated = [f"Instruct: {small.TASK}\nQuery: {text}" for text in texts]
    both = templated + texts
    vectors = {
        "Embedder": np.concatenate([ours.encode_query(texts), ours.encode_document(texts)]),
        "sentence-transformers": np.concatenate(
            [theirs.encode_query(texts), theirs.encode_document(texts)]
        ),
    }
    under = AutoModel.from_pretrained(base, dtype=torch.float32)
    models = {"transformers": AutoModel.from_pretrained(folder, dtype=torch.float32)}
    if kind == "adapter":
        models["PEFT"] = peft.PeftModel.from_pretrained(
            AutoModel.from_pretrained(base, dtype=torch.float32), folder
        )
    for side in ("right", "left"):
        tokenizer.padding_side = side
        vectors |= {
            f"{name}, {side}": np.array(by_hand(each, tokenizer, both, pooling))
            for name, each in models.items()
        }

    numbers = tiny.numbers(tiny.made(spec, lora=None)) | {
        name: np.asarray(value) for name, value in subject.parameters.items()
    }
    own = np.array(by_hand(tiny.peft_mistral(subject.made, numbers), tokenizer, both, pooling))
    for name, found in vectors.items():
        assert cosines(found, own).min() >= LEAST[dtype], name
    assert cosines(np.array(by_hand(under, tokenizer, both, pooling)), own).max() < LEAST[dtype]


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.sum(a * b, axis=-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1)
