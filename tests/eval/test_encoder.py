import json
import shutil
import zlib
from pathlib import Path

import mteb
import numpy as np
import pytest
import torch
from mteb.abstasks.task_metadata import TaskMetadata
from mteb.mocks.mock_tasks import (
    MockClassificationTask,
    MockRerankingTask,
    MockRetrievalTask,
    MockSTSTask,
)
from mteb.models import EncoderProtocol
from sentence_transformers import SentenceTransformer

from e5jax.errors import ConfigError
from e5jax.eval.backends import JaxEncoder, TorchEncoder, jax_encoder
from e5jax.eval.preset import PRESETS, mteb_instruction
from tests.eval.folder import save_tiny
from tests.eval.stand_in import StandIn

PAPER = PRESETS["paper"]
TEXTS = [
    "This is a test sentence",
    "def read_json(path):\n    return json.load(path)",
    "",
    "Größe — ünïcode",
    "a word, " * 60,  # longer than the limit
]

# The mock has so few texts that a class is never predicted.
rare_classes = pytest.mark.filterwarnings(
    "ignore:Precision is ill-defined:sklearn.exceptions.UndefinedMetricWarning"
)


def bag_of_words(text: str) -> np.ndarray:
    """Unit counts of hashed words, for a text that has any."""
    hashes = [zlib.crc32(word.encode()) % 64 for word in text.split()]
    vector = np.bincount(hashes, minlength=64)
    return vector / np.linalg.norm(vector)


def run(encoder: EncoderProtocol, task: mteb.AbsTask) -> float:
    return (
        mteb.evaluate(encoder, task, cache=None, co2_tracker=False, show_progress_bar=False)
        .task_results[0]
        .get_score()
    )


def instructions(task: mteb.AbsTask, instruction: str | None = None) -> dict[str, set[str | None]]:
    """Text -> the instructions it was embedded with when the task was evaluated."""
    embedder = StandIn(bag_of_words)
    run(JaxEncoder(embedder, PAPER, instruction), task)
    by_text: dict[str, set[str | None]] = {}
    for text, with_instruction in embedder.calls:
        by_text.setdefault(text, set()).add(with_instruction)
    return by_text


def retrieval_texts(task: mteb.AbsTask) -> tuple[list[str], list[str]]:
    task.load_data()
    data = task.dataset["default"]["test"]
    # As mteb joins them.
    documents = [f"{row.get('title') or ''} {row['text']}".strip() for row in data["corpus"]]
    return list(data["queries"]["text"]), documents


def test_the_stand_in_and_the_encoder_have_the_interfaces():
    assert isinstance(JaxEncoder(StandIn(bag_of_words), PAPER), EncoderProtocol)


def test_retrieval_queries_have_the_instruction_and_documents_are_bare():
    queries, documents = retrieval_texts(MockRetrievalTask())
    by_text = instructions(MockRetrievalTask(), "find it")
    assert {text: by_text[text] for text in queries} == {text: {"find it"} for text in queries}
    assert {text: by_text[text] for text in documents} == {text: {None} for text in documents}


@rare_classes
@pytest.mark.parametrize("task", [MockSTSTask, MockRerankingTask, MockClassificationTask])
def test_other_task_types_have_the_instruction_on_every_text(task):
    assert set.union(*instructions(task(), "find it").values()) == {"find it"}


@pytest.mark.parametrize("task", [MockSTSTask, MockRetrievalTask])
def test_an_empty_instruction_means_none(task):
    assert set.union(*instructions(task(), "").values()) <= {None, ""}  # None for documents


def metadata(prompt: str | dict | None) -> TaskMetadata:
    return MockSTSTask.metadata.model_copy(update={"prompt": prompt})


@pytest.mark.parametrize(
    ("task", "instruction"),
    [
        (metadata("its own"), "its own"),
        (metadata({"query": "for queries", "document": "for documents"}), "for queries"),
        (metadata(None), "Retrieve semantically similar text."),
        (metadata({"query": ""}), ""),
        (metadata({"document": "for documents"}), ""),
    ],
)
def test_without_an_explicit_instruction_the_task_gives_its_own(task, instruction):
    assert mteb_instruction(task) == instruction


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("tiny"), TEXTS)


def loader(texts: list[str]) -> torch.utils.data.DataLoader:
    return torch.utils.data.DataLoader([{"text": text} for text in texts], batch_size=2)


@pytest.mark.parametrize("instruction", ["find it", ""])
def test_both_backends_give_the_same_vectors(folder, instruction):
    encoders = [make(folder, PAPER, instruction) for make in (jax_encoder, TorchEncoder)]
    ours, theirs = (
        e.encode(loader(TEXTS), task_metadata=MockSTSTask.metadata, hf_split="", hf_subset="")
        for e in encoders
    )
    # float32 sums in another order.
    np.testing.assert_allclose(ours, theirs, atol=1e-5)
    assert np.abs(ours[0] - ours[1]).max() > 1e-2, (
        "the model tells texts apart, or the line above would prove nothing"
    )


def edited(folder: Path, copy: Path, **values: object) -> Path:
    """A copy that says more about its vectors."""
    shutil.copytree(folder, copy)
    settings = json.loads((copy / "config_sentence_transformers.json").read_text())
    (copy / "config_sentence_transformers.json").write_text(json.dumps(settings | values))
    return copy


@pytest.mark.parametrize("similarity", ["cosine", "dot"])
def test_the_package_protocol_takes_dimensions_and_similarity_as_sentence_transformers_does(
    folder, tmp_path, similarity
):
    folder = edited(folder, tmp_path / "model", truncate_dim=8, similarity_fn_name=similarity)
    plain = SentenceTransformer(
        str(folder), device="cpu", local_files_only=True, model_kwargs={"dtype": torch.float32}
    )
    expected = plain.encode(TEXTS, prompt="")
    scores = plain.similarity(expected, expected).numpy()
    for make in (jax_encoder, TorchEncoder):
        encoder = make(folder, PRESETS["mteb-v2"], "")
        vectors = encoder.encode(
            loader(TEXTS), task_metadata=MockSTSTask.metadata, hf_split="", hf_subset=""
        )
        np.testing.assert_allclose(vectors, expected, atol=1e-5)
        np.testing.assert_allclose(encoder.similarity(vectors, vectors), scores, atol=1e-5)
    assert (np.abs(np.diag(scores) - 1).max() > 0.1) == (similarity == "dot"), (
        "the two differ, or this would prove nothing"
    )


def test_the_papers_protocol_scores_cosines_of_unit_vectors(folder, tmp_path):
    folder = edited(folder, tmp_path / "model", truncate_dim=8, similarity_fn_name="dot")
    for make in (jax_encoder, TorchEncoder):
        encoder = make(folder, PAPER, "")
        vectors = encoder.encode(
            loader(TEXTS), task_metadata=MockSTSTask.metadata, hf_split="", hf_subset=""
        )
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
        assert encoder.mteb_model_meta.similarity_fn_name.value == "cosine"


@pytest.mark.parametrize("make", [jax_encoder, TorchEncoder])
def test_a_similarity_that_is_not_scored_is_refused(folder, tmp_path, make):
    folder = edited(folder, tmp_path / "model", similarity_fn_name="manhattan")
    with pytest.raises(
        ConfigError, match="similarity_fn_name='manhattan': mteb scores cosine and dot"
    ):
        make(folder, PRESETS["mteb-v2"])
    make(folder, PAPER)


def test_a_folder_without_modules_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"no modules\.json"):
        TorchEncoder(tmp_path, PAPER)
