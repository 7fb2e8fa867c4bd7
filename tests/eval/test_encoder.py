import json
import zlib
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import mteb
import numpy as np
import pytest
import torch
from mteb.abstasks.task_metadata import TaskMetadata
from mteb.mocks.mock_tasks import MockClassificationTask, MockRerankingTask, MockRetrievalTask, MockSTSTask
from mteb.models import EncoderProtocol
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer
from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
from transformers import MistralConfig, MistralModel, PreTrainedTokenizerFast

from e5jax.errors import ConfigError
from e5jax.eval.encoder import JaxEncoder, jax_encoder, torch_encoder
from e5jax.eval.instructions import packaged
from e5jax.eval.preset import PRESETS

PAPER = PRESETS["paper"]
TEXTS = [
    "This is a test sentence",
    "def read_json(path):\n    return json.load(path)",
    "",
    "Größe — ünïcode",
    "a word, " * 60,  # longer than the limit
]
SPECIAL = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "</s>"}

# The mock has so few texts that a class is never predicted.
rare_classes = pytest.mark.filterwarnings("ignore:Precision is ill-defined:sklearn.exceptions.UndefinedMetricWarning")


class BagOfWords:
    """Stands in for an Embedder: deterministic, and it remembers who was asked with which instruction."""

    def __init__(self) -> None:
        self.tokenizer = SimpleNamespace(limit=512)
        self.asked: list[tuple[str, str | None]] = []

    def encode(
        self, texts: Sequence[str], instruction: str | None = None, show_progress: bool = False, *, normalise: bool = True
    ) -> np.ndarray:
        del show_progress, normalise
        self.asked += [(text, instruction) for text in texts]
        return np.stack([self._vector(f"{instruction or ''} {text}") for text in texts])

    @staticmethod
    def _vector(text: str) -> np.ndarray:
        vector = np.bincount([zlib.crc32(word.encode()) % 64 for word in text.split()], minlength=64).astype(np.float32)
        return vector / np.linalg.norm(vector)


def run(encoder: EncoderProtocol, task: mteb.AbsTask) -> float:
    return mteb.evaluate(encoder, task, cache=None, co2_tracker=False, show_progress_bar=False).task_results[0].get_score()


def instructions(task: mteb.AbsTask, instruction: str | None = None) -> dict[str, set[str | None]]:
    """Text -> the instructions it was embedded with when the task was evaluated."""
    embedder = BagOfWords()
    run(JaxEncoder(embedder, PAPER, instruction), task)
    found: dict[str, set[str | None]] = {}
    for text, with_instruction in embedder.asked:
        found.setdefault(text, set()).add(with_instruction)
    return found


def retrieval_texts(task: mteb.AbsTask) -> tuple[list[str], list[str]]:
    task.load_data()
    data = task.dataset["default"]["test"]
    # As mteb joins them.
    documents = [f"{row.get('title') or ''} {row['text']}".strip() for row in data["corpus"]]
    return list(data["queries"]["text"]), documents


def test_the_stand_in_and_the_encoder_have_the_interfaces():
    assert isinstance(JaxEncoder(BagOfWords(), PAPER), EncoderProtocol)


def test_retrieval_queries_have_the_instruction_and_documents_are_bare():
    queries, documents = retrieval_texts(MockRetrievalTask())
    found = instructions(MockRetrievalTask(), "find it")
    assert {text: found[text] for text in queries} == {text: {"find it"} for text in queries}
    assert {text: found[text] for text in documents} == {text: {None} for text in documents}


@rare_classes
@pytest.mark.parametrize("task", [MockSTSTask, MockRerankingTask, MockClassificationTask])
def test_other_task_types_have_the_instruction_on_every_text(task):
    assert set.union(*instructions(task(), "find it").values()) == {"find it"}


@pytest.mark.parametrize("task", [MockSTSTask, MockRetrievalTask])
def test_an_empty_instruction_means_none(task):
    assert set.union(*instructions(task(), "").values()) == {None}


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
    assert packaged(task) == instruction


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random Mistral as sentence-transformers saves it, with BOS and EOS added by tokenizer.json."""
    root = tmp_path_factory.mktemp("tiny")
    torch.manual_seed(0)
    config = MistralConfig(
        vocab_size=300, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2
    )
    config.head_dim, config.sliding_window = 16, None
    model = MistralModel(config)
    for parameter in model.parameters():  # unlike fresh ones, these weights tell one text from another
        torch.nn.init.normal_(parameter, 1.0 if parameter.ndim == 1 else 0.0, 0.2)
    model.save_pretrained(root / "base")
    _tokenizer().save_pretrained(root / "base")
    body = Transformer(str(root / "base"), max_seq_length=128)
    modules = [body, Pooling(64, pooling_mode="lasttoken"), Normalize()]
    made = SentenceTransformer(modules=modules, prompts={"query": "never: ", "document": ""}, default_prompt_name="query")
    made.save(str(root / "model"), create_model_card=False)
    # Where sentence-transformers before 6 and `e5jax export` keep the limit.
    settings = root / "model" / "sentence_bert_config.json"
    settings.write_text(json.dumps({**json.loads(settings.read_text()), "max_seq_length": 128}))
    return root / "model"


def _tokenizer() -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    special = ["<unk>", "<s>", "</s>"]
    tokenizer.train_from_iterator(TEXTS, trainers.BpeTrainer(vocab_size=300, special_tokens=special, initial_alphabet=alphabet))
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **SPECIAL)


def loader(texts: list[str]) -> torch.utils.data.DataLoader:
    return torch.utils.data.DataLoader([{"text": text} for text in texts], batch_size=2)


@pytest.mark.parametrize("instruction", ["find it", ""])
def test_both_backends_give_the_same_vectors(folder, instruction):
    encoders = [make(folder, PAPER, instruction) for make in (jax_encoder, torch_encoder)]
    ours, theirs = (e.encode(loader(TEXTS), task_metadata=MockSTSTask.metadata, hf_split="", hf_subset="") for e in encoders)
    # float32 sums in another order.
    np.testing.assert_allclose(ours, theirs, atol=1e-5)
    assert np.abs(ours[0] - ours[1]).max() > 1e-2, "the model tells texts apart, or the line above would prove nothing"


@rare_classes
@pytest.mark.parametrize("task", [MockRetrievalTask, MockSTSTask, MockClassificationTask])
def test_both_backends_give_the_same_scores(folder, task):
    assert run(jax_encoder(folder, PAPER), task()) == pytest.approx(run(torch_encoder(folder, PAPER), task()), abs=1e-4)


def test_a_folder_without_modules_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"no modules\.json"):
        torch_encoder(tmp_path, PAPER)
