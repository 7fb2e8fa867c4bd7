"""Tiny bases and trained models to export, and the libraries that read them, in this process."""

import shutil
from functools import cache
from pathlib import Path
from typing import Any

import jax
import numpy as np
import torch

from e5jax.config import Data, Export, Lora, Model, Optim, Tokens, Training
from e5jax.data.tokenizer import TextTokenizer, train_tokenizer
from e5jax.export.folder import write
from e5jax.export.layer_subsets import Part
from e5jax.export.reference import Texts
from e5jax.export.reference_libraries import Question, answer
from e5jax.export.trained_model import Choice, TrainedModel
from e5jax.export.verify import question
from e5jax.model.model_def import ModelDef
from e5jax.model.spec import Spec
from tests import tiny

torch.set_num_threads(1)  # many small products: threads would wait for each other
TASK = "Find the answer"
LIMIT = 64
WORDS = "the quick brown fox jumps over a lazy dog while reading files from disk and closing them"
UNVERIFIED = Choice(verify=False)


@cache
def tokenizer() -> TextTokenizer:
    return TextTokenizer(train_tokenizer([WORDS] * 3, 400), 1, 2, LIMIT)


def spec(of: Spec = tiny.SPEC) -> Spec:
    return of._replace(vocab=tokenizer().tokenizer.get_vocab_size(), window=16)


def place(of: ModelDef, values: dict[str, np.ndarray]) -> dict[str, jax.Array]:
    on = tiny.mesh(1, 1, 1)
    wanted = of.abstract(of.leaves, on, "float32")
    return {name: jax.device_put(values[name], leaf.sharding) for name, leaf in wanted.items()}


def run(
    base: str = "x", lora: Lora | None = tiny.LORA, pooling: str = "last", dtype: str = "float32"
) -> Training:
    return Training(
        data=Data(files=("pairs.jsonl",)),
        model=Model(base=base, pooling=pooling, dtype="float32"),
        tokens=Tokens(limit=LIMIT),
        lora=lora,
        optim=Optim(steps=9),
        export=Export(dtype=dtype, task=TASK),
    )


def base(folder: Path, of: Spec, pooling: str = "last") -> Path:
    """A merged folder of random numbers."""
    full = tiny.made(of, lora=None)
    made = run(lora=None, pooling=pooling)
    write(
        TrainedModel(made, None, full, place(full, tiny.numbers(full)), tokenizer(), 0),
        folder,
        UNVERIFIED,
    )
    return folder


def adapted(folder: Path, of: Spec, pooling: str = "last", dtype: str = "float32") -> TrainedModel:
    """A checkpoint of adapters on the base in `folder`, both factors of each non-zero."""
    made = tiny.made(of)
    trained = {
        name: value
        for name, value in place(made, tiny.numbers(made, seed=1)).items()
        if "lora" in name
    }
    return TrainedModel(
        run(str(folder), pooling=pooling, dtype=dtype), folder, made, trained, tokenizer(), 7
    )


def asked(part: Part, subject: TrainedModel) -> dict[str, Any]:
    """What transformers, PEFT and sentence-transformers answer, without a process of their own."""
    return answer(Question(**question(part, subject, Texts.of(subject))))


def copy(folder: Path, to: Path) -> Path:
    shutil.copytree(folder, to)
    return to
