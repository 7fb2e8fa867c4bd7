"""Both presets on both backends, by the ids that a tiny Mistral receives for each type of task."""

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import mteb
import numpy as np
import pytest
import torch
from mteb.mocks import MOCK_TASK_TEST_GRID
from mteb.mocks.mock_tasks import MockSTSTask
from mteb.types import PromptType
from sentence_transformers import SentenceTransformer
from tokenizers import Tokenizer

from e5jax.data.tokenizer import TextTokenizer
from e5jax.eval.backends import TorchEncoder, jax_encoder
from e5jax.eval.encoder import InstructEncoder
from e5jax.eval.preset import PRESETS
from tests.eval.folder import save_tiny

ALL = {task.metadata.name: type(task) for task in MOCK_TASK_TEST_GRID}
FEW = ("MockRetrievalTask", "MockRerankingTask", "MockSTSTask", "MockClassificationTask")
CHOSEN = ALL if os.environ.get("E5JAX_MOCKS") == "all" else {name: ALL[name] for name in FEW}
MAKERS = {"jax": jax_encoder, "torch": TorchEncoder}

INSTRUCTIONS = {  # mteb's, for tasks that say nothing
    "Retrieval": "Retrieve text based on user query.",
    "InstructionRetrieval": "Retrieve text based on user query.",
    "Reranking": "Retrieve text based on user query.",
    "InstructionReranking": "Retrieve text based on user query.",
    "Classification": "Classify user passages.",
    "MultilabelClassification": "Classify user passages.",
    "Regression": "Predict the value of the user passage.",
    "Clustering": "Identify categories in user passages.",
    "PairClassification": "Retrieve text that are semantically similar to the given text.",
    "STS": "Retrieve semantically similar text.",
    "Summarization": "Given a news summary, retrieve other semantically similar summaries.",
    "BitextMining": "Retrieve parallel sentences.",
    "ZeroShotClassification": "Classify the given input into one of the candidate labels.",
}
SEARCHED = {"Retrieval", "InstructionRetrieval"}
BARE_DOCUMENTS = {"paper": SEARCHED, "mteb-v2": SEARCHED | {"Reranking", "InstructionReranking"}}
NOT_UNIT = {"paper": {"Classification"}, "mteb-v2": set()}


class Call(NamedTuple):
    """One call of a task: its texts, their side, and what the model received and returned."""

    texts: list[str]
    side: PromptType | None
    ids: list[tuple[int, ...]]
    lengths: np.ndarray  # of vectors


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(
        tmp_path_factory.mktemp("tiny"),
        ["This is a test sentence", "Instruct: Retrieve text.\nQuery: "],
    )


@pytest.fixture(scope="module")
def encoders(folder) -> dict[tuple[str, str], InstructEncoder]:
    return {
        (backend, preset): make(folder, PRESETS[preset])
        for backend, make in MAKERS.items()
        for preset in PRESETS
    }


@contextmanager
def recorded(encoder: InstructEncoder) -> Iterator[list[Call]]:
    """Records ids as they enter the model: in PyTorch's forward pass, and from our tokenizer."""
    calls: list[Call] = []
    ids: list[tuple[int, ...]] = []
    forward, tokenize, encode = SentenceTransformer.forward, TextTokenizer.__call__, encoder.encode

    def recording_forward(self, features, **kwargs):
        for row, mask in zip(
            features["input_ids"].tolist(), features["attention_mask"].tolist(), strict=True
        ):
            ids.append(tuple(token for token, real in zip(row, mask, strict=True) if real))
        return forward(self, features, **kwargs)

    def recording_tokenize(self, texts, limits=None):
        rows = tokenize(self, texts, limits)
        ids.extend(map(tuple, rows))
        return rows

    def recording_encode(inputs, *, prompt_type=None, **kwargs):
        ids.clear()
        vectors = encode(inputs, prompt_type=prompt_type, **kwargs)
        texts = [text for batch in inputs for text in batch["text"]]
        calls.append(Call(texts, prompt_type, list(ids), np.linalg.norm(vectors, axis=1)))
        return vectors

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SentenceTransformer, "forward", recording_forward)
        patch.setattr(TextTokenizer, "__call__", recording_tokenize)
        patch.setattr(encoder, "encode", recording_encode)
        yield calls


def score(encoder: InstructEncoder, task: mteb.AbsTask) -> float:
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore"
        )  # so few texts that classes are never predicted, correlations not defined
        results = mteb.evaluate(
            encoder, task, cache=None, co2_tracker=False, show_progress_bar=False
        )
    return results.task_results[0].get_score()


def expected(preset: str, kind: str, call: Call, tokenizer: Tokenizer) -> list[tuple[int, ...]]:
    """Ids by the rules that the documentation states, `<s> … </s>` by tokenizer.json."""
    bare = call.side == PromptType.document and kind in BARE_DOCUMENTS[preset]
    prefix = "" if bare else f"Instruct: {INSTRUCTIONS[kind]}\nQuery: "
    return [tuple(tokenizer.encode(prefix + text).ids) for text in call.texts]


@pytest.mark.parametrize("name", CHOSEN)
def test_both_backends_and_presets_by_what_the_model_is_given(folder, encoders, name):
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    kind = CHOSEN[name].metadata.type
    for preset in PRESETS:
        scores = {}
        for backend in MAKERS:
            encoder = encoders[backend, preset]
            with recorded(encoder) as calls:
                scores[backend] = score(encoder, CHOSEN[name]())
            assert calls
            for call in calls:
                assert sorted(call.ids) == sorted(expected(preset, kind, call, tokenizer)), (
                    preset,
                    backend,
                    call.side,
                )
                assert all((ids[0], ids[-1]) == (1, 2) for ids in call.ids)
                if kind in NOT_UNIT[preset]:
                    assert np.abs(call.lengths - 1).min() > 0.01, (preset, backend)
                else:
                    np.testing.assert_allclose(call.lengths, 1, atol=1e-5)
        assert scores["jax"] == pytest.approx(scores["torch"], abs=1e-4, nan_ok=True), preset


def test_every_type_of_text_task_has_a_mock():
    assert {task.metadata.type for task in ALL.values()} == set(INSTRUCTIONS)


@pytest.mark.parametrize("backend", MAKERS)
@pytest.mark.parametrize(("preset", "limit"), [("paper", 512), ("mteb-v2", 600)])
def test_a_long_text_is_cut_where_the_preset_says_and_still_ends(tmp_path, backend, preset, limit):
    folder = save_tiny(tmp_path, ["a b c"], limit=600)
    encoder = MAKERS[backend](folder, PRESETS[preset])
    with recorded(encoder) as calls:
        encoder.encode(
            torch.utils.data.DataLoader([{"text": "a b c " * 400}]),
            task_metadata=MockSTSTask.metadata,
            hf_split="",
            hf_subset="",
        )
    (ids,) = calls[0].ids
    assert (len(ids), ids[0], ids[-1]) == (limit, 1, 2)
