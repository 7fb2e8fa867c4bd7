"""New tokens with a template for each side: their rows alone are trained, and every reader of the export puts texts alike."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer

from e5jax.config import Lora, Select, Training
from e5jax.data.tokenizer import Templates
from e5jax.errors import ConfigError
from e5jax.eval.backends import TorchEncoder, jax_encoder
from e5jax.eval.preset import PRESETS
from e5jax.export.folder import export
from e5jax.inference.embedder import Embedder
from e5jax.model import hf_weights
from e5jax.train import loop
from e5jax.train.inputs import read_inputs
from e5jax.workdir.directory import Workdir
from tests.eval.test_encoder import loader
from tests.train.test_loop import STEPS, inputs_for, lora_run, place

__all__ = ["place"]  # a fixture
SIDES = Templates("[Q]", "[D]")


def run_of(root: Path, lora: Lora | None) -> Training:
    run = lora_run(root)
    run.lora, run.tokens.added = lora, ("[Q]", "[D]")
    run.tokens.query, run.tokens.document = SIDES
    return run


@pytest.fixture(scope="module")
def trained(place, tmp_path_factory) -> tuple[Training, Path]:
    """Rows of new tokens and nothing else; a mean of weights, of which some dimensions are kept."""
    run, root = run_of(place, None), tmp_path_factory.mktemp("sides")
    run.select = Select(("added",))
    run.model.pooling, run.export.dimensions = "weighted_mean", 16
    inputs = inputs_for(run)
    assert loop.train(run, inputs, Workdir(root), "sides") == STEPS
    export(
        run, inputs.base, inputs.spec, inputs.tokenizer, Workdir(root), root / "export"
    )  # verified
    return run, root / "export"


def test_only_the_rows_of_new_tokens_are_trained(place, trained):
    before, after = hf_weights.headers(place / "base"), hf_weights.headers(trained[1])
    table, longer = (
        np.asarray(hf_weights.read(found["embed_tokens.weight"]), np.float32)
        for found in (before, after)
    )
    assert len(longer) == len(table) + 2
    for name, tensor in after.items():
        own = np.asarray(hf_weights.read(tensor), np.float32)
        kept = np.asarray(hf_weights.read(before[name]), np.float32)
        np.testing.assert_allclose(own[: len(kept)], kept, rtol=2**-8)  # bfloat16
    mean = table.mean(axis=0)
    new = longer[len(table) :]
    assert (np.linalg.norm(new - mean, axis=1) > 1e-3).all()  # where they began
    assert np.linalg.norm(new[0] - new[1]) > 1e-3


def test_batches_have_the_token_of_their_side_first(place):
    batch = inputs_for(run_of(place, Lora())).batches[0]
    size = json.loads((place / "base" / "config.json").read_text())["vocab_size"]
    starts = np.asarray(batch.tokens)[
        (np.asarray(batch.positions) == 1) & (np.asarray(batch.segments) > 0)
    ]
    assert np.bincount(starts - size).tolist() == [8, 16]  # queries; positives and hard negatives


def test_all_readers_of_the_export_put_texts_alike(trained):
    folder = trained[1]
    ours = Embedder.from_pretrained(folder, dtype="float32")
    theirs = SentenceTransformer(str(folder), device="cpu", model_kwargs={"dtype": torch.float32})
    texts = ["alpha beta", "a </s> [Q] b", ""]
    assert ours.tokenizer.templates == SIDES
    assert [ids[1] for ids in ours.tokenize(texts, "")] == [
        ours.tokenizer.tokenizer.token_to_id("[Q]")
    ] * 3
    for own, other, direct in (
        (ours.encode_query(texts), theirs.encode_query(texts), ours.encode(texts, "")),
        (ours.encode_document(texts), theirs.encode_document(texts), ours.encode(texts)),
    ):
        assert own.shape == other.shape == (3, 16)
        np.testing.assert_allclose(own, other, atol=1e-5)
        np.testing.assert_allclose(own, direct, atol=1e-5)
    assert np.abs(ours.encode_query(texts) - ours.encode_document(texts)).max() > 1e-3


def test_an_evaluation_puts_queries_and_documents_as_the_folder_says(trained):
    from mteb.mocks.mock_tasks import MockRetrievalTask  # noqa: PLC0415
    from mteb.types import PromptType  # noqa: PLC0415

    ours = Embedder.from_pretrained(trained[1], dtype="float32")
    texts = ["alpha beta", "gamma"]
    for make in (jax_encoder, TorchEncoder):
        encoder = make(trained[1], PRESETS["paper"], "")
        for side, wanted in (
            (PromptType.query, ours.encode_query(texts, dimensions=16)),
            (PromptType.document, ours.encode_document(texts, dimensions=16)),
        ):
            found = encoder.encode(
                loader(texts), task_metadata=MockRetrievalTask.metadata, prompt_type=side
            )
            np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_the_export_is_a_base_whose_tokens_are_known(place, trained):
    run = run_of(place, Lora())
    run.model.base = str(trained[1])
    again = inputs_for(run)
    assert (again.spec.added, again.spec.vocab) == (0, again.tokenizer.tokenizer.get_vocab_size())


def test_rows_that_are_there_already_are_not_given_away(place, tmp_path):
    run = run_of(place, Lora())
    file = tmp_path / "tokenizer.json"
    said = json.loads((place / "base" / "tokenizer.json").read_text())
    last = max(said["model"]["vocab"], key=said["model"]["vocab"].get)
    del said["model"]["vocab"][last]
    said["model"]["merges"] = [pair for pair in said["model"]["merges"] if "".join(pair) != last]
    file.write_text(json.dumps(said))
    with pytest.raises(
        ConfigError,
        match=r"config\.tokens\.added: the tokenizer has \d+ pieces and the model \d+ rows",
    ):
        read_inputs(run, run.data.files, file, run.model.base)
