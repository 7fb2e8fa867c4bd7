"""Vectors do not depend on what else is encoded, nor on how: packed, behind a shared start, on eight devices or one by one."""

from pathlib import Path

import jax
import numpy as np
import pytest

from e5jax.config import Export, Model, Tokens, Training
from e5jax.data import text_rows
from e5jax.data.tokenizer import TextTokenizer, train_tokenizer
from e5jax.errors import ConfigError
from e5jax.export.folder import write
from e5jax.export.trained_model import Choice, TrainedModel
from e5jax.inference import embedder
from e5jax.inference.embedder import Embedder
from tests import tiny

WORDS = [
    "read",
    "write",
    "open",
    "close",
    "parse",
    "file",
    "header",
    "line",
    "token",
    "model",
    "batch",
    "step",
    "loss",
    "rate",
]
TASK = "Given the name of a function in a large library, find the line of code in which it opens or closes a file"
LIMIT = 200


@pytest.fixture(scope="module")
def texts() -> list[str]:
    random = np.random.default_rng(0)
    return [
        "",
        *(
            " ".join(random.choice(WORDS, size))
            for size in [1, 2, 150, *random.integers(1, 40, 60)]
        ),
        "read " * 300,
    ]


@pytest.fixture(scope="module", params=["last", "mean"])
def folder(request, texts, tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("embedder")
    train_tokenizer([*texts, TASK], 300).save(str(root / "tokenizer.json"))
    tokenizer = TextTokenizer.from_file(root / "tokenizer.json", 1, 2, LIMIT)
    of = tiny.made(
        tiny.SPEC._replace(vocab=tokenizer.tokenizer.get_vocab_size(), window=600), lora=None
    )
    run = Training(
        model=Model(base="x", pooling=request.param),
        tokens=Tokens(limit=LIMIT),
        export=Export(dtype="float32"),
    )
    with jax.set_mesh(tiny.mesh(1, 1, 1)):
        numbers = {name: jax.device_put(value) for name, value in tiny.numbers(of).items()}
    write(TrainedModel(run, None, of, numbers, tokenizer, 0), root / "model", Choice(verify=False))
    return root / "model"


@pytest.mark.parametrize("instruction", [None, TASK])
def test_a_text_has_the_same_vector_whatever_is_encoded_beside_it(
    folder, texts, instruction, monkeypatch
):
    model = Embedder.from_pretrained(folder)
    together = []

    def recorded_calls(*arguments):
        calls = list(text_rows.calls(*arguments))
        together.extend(calls)
        return iter(calls)

    monkeypatch.setattr(embedder, "calls", recorded_calls)
    monkeypatch.setattr(embedder, "BLOCK", 50)  # two of them
    found = model.encode(texts, instruction)
    assert {call.shared > 0 for call in together} == {instruction is not None}
    assert len({call.rows.tokens.shape for call in together}) <= 2
    monkeypatch.setattr(text_rows, "SHORTEST_SHARED", 10_000)
    alone = np.concatenate([model.encode([text], instruction) for text in texts[:6] + texts[-1:]])
    np.testing.assert_allclose(found[[*range(6), -1]], alone, atol=2e-6)


def test_leading_dimensions_have_length_one_again(folder, texts):
    model = Embedder.from_pretrained(folder)
    whole, cut = model.encode(texts[:3]), model.encode(texts[:3], dimensions=8)
    wanted = whole[:, :8] / np.linalg.norm(whole[:, :8], axis=1, keepdims=True)
    np.testing.assert_allclose(cut, wanted, atol=1e-6)


def test_a_limit_cuts_texts_before_their_eos(folder, texts):
    model = Embedder.from_pretrained(folder, limit=6)
    assert {len(ids) for ids in model.tokenize(texts)} <= set(range(2, 7))
    np.testing.assert_allclose(
        model.encode(["read write open close x"]),
        model.encode(["read write open close y"]),
        atol=1e-6,
    )
    with pytest.raises(ConfigError, match="limit=2: must be at least 3"):
        Embedder.from_pretrained(folder, limit=2)


def test_nothing_to_encode_is_an_empty_array(folder):
    assert Embedder.from_pretrained(folder).encode([]).shape == (0, tiny.SPEC.hidden)
