"""The base as a run starts from it: what the run says of pooling, prompts, limit and architecture, on both backends."""

import numpy as np
import pytest
import torch
from mteb.mocks.mock_tasks import MockRetrievalTask
from mteb.types import PromptType
from transformers import AutoModel

from e5jax.config import Config, Model, Tokens
from e5jax.data.tokenizer import read_tokenizer
from e5jax.eval.backends import TorchEncoder, jax_encoder
from e5jax.eval.preset import PRESETS
from e5jax.export.start import write_start
from e5jax.pipeline import write_base
from tests.flagship import WORDS, save_base

TEXTS = [" ".join(WORDS), "stone market", "candle"]
LIMIT = 12


def expected(base, pooling: str, theta: float) -> np.ndarray:
    """By transformers alone: BOS, the document prompt, the text, EOS."""
    model, tokenizer = (
        AutoModel.from_pretrained(base, dtype=torch.float32),
        read_tokenizer(base / "tokenizer.json"),
    )
    model.config.rope_parameters["rope_theta"] = theta
    model = type(model)(model.config).eval()
    model.load_state_dict(AutoModel.from_pretrained(base, dtype=torch.float32).state_dict())
    vectors = []
    for text in TEXTS:
        ids = [
            1,
            *tokenizer.encode(f"passage: {text}", add_special_tokens=False).ids[: LIMIT - 2],
            2,
        ]
        with torch.no_grad():
            hidden = model(torch.tensor([ids])).last_hidden_state[0]
        vectors.append((hidden.mean(0) if pooling == "mean" else hidden[-1]).numpy())
    return np.stack([vector / np.linalg.norm(vector) for vector in vectors])


@pytest.mark.parametrize("pooling", ["last", "mean"])
def test_both_backends_give_the_vectors_that_training_starts_with(pooling, tmp_path):
    save_base(tmp_path / "plain")
    model = Model(base=str(tmp_path / "plain"), pooling=pooling, theta=100.0)
    run = Config(model=model, tokens=Tokens(limit=LIMIT, document="passage: "))
    write_start(run, tmp_path / "plain", tmp_path / "base")
    weights = tmp_path / "base/model.safetensors"
    assert weights.is_symlink()
    assert weights.samefile(tmp_path / "plain/model.safetensors")
    loader = torch.utils.data.DataLoader([{"text": text} for text in TEXTS], batch_size=2)
    right = expected(tmp_path / "plain", pooling, theta=100.0)
    for make in (jax_encoder, TorchEncoder):
        encoder = make(tmp_path / "base", PRESETS["paper"])
        given = {
            "task_metadata": MockRetrievalTask.metadata,
            "hf_split": "test",
            "hf_subset": "default",
        }
        vectors = encoder.encode(loader, prompt_type=PromptType.document, **given)
        np.testing.assert_allclose(vectors, right, atol=1e-5)  # sums in another order
    assert np.abs(right - expected(tmp_path / "plain", pooling, theta=10_000.0)).max() > 1e-3, (
        "theta matters"
    )


def test_a_base_that_is_not_to_be_had_is_named_and_no_error(tmp_path):
    missing = write_base(Config(model=Model(base="no-such-org/no-such-model")), tmp_path / "base")
    assert missing.startswith(
        "the base is not among the systems: 'no-such-org/no-such-model': no such folder here"
    )
    assert not (tmp_path / "base").exists()
    assert write_base(Config(model=Model(base="")), tmp_path / "base") == ""
