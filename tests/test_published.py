"""Folders that others made: the layout of the published Mistral embedders, and adapters of PEFT on them, in `Embedder`."""

import json
from pathlib import Path

import numpy as np
import peft
import pytest
import torch
from sentence_transformers import SentenceTransformer
from transformers import AutoModel, MistralConfig, MistralForCausalLM

from e5jax.inference.embedder import Embedder
from tests import tiny
from tests.export import small

TASK = "Given a web search query, retrieve relevant passages that answer the query"
PROMPTS = {
    "web_search_query": f"Instruct: {TASK}\nQuery: ",
    "sts_query": "Instruct: Retrieve semantically similar text.\nQuery: ",
}
FLAGS = (
    "cls_token",
    "mean_tokens",
    "max_tokens",
    "mean_sqrt_len_tokens",
    "weightedmean_tokens",
    "lasttoken",
)
TEXTS = ["how to read a file", "日本語のテキスト", "</s> is text", ""]
pytestmark = pytest.mark.filterwarnings(tiny.PEFT_WARNING)


@pytest.fixture(scope="module")
def published(tmp_path_factory) -> Path:
    """As intfloat/e5-mistral-7b-instruct: float16 in several files, last token, named prompts and none for `query`."""
    folder = tmp_path_factory.mktemp("published") / "model"
    spec = small.spec()
    torch.manual_seed(0)
    config = MistralConfig(
        vocab_size=spec.vocab,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        pad_token_id=2,
    )
    model = MistralForCausalLM(config).half()
    model.save_pretrained(
        folder, max_shard_size="60KB"
    )  # names begin with `model.`, and there is a head
    small.tokenizer().tokenizer.save(str(folder / "tokenizer.json"))
    write(
        folder / "tokenizer_config.json",
        {"tokenizer_class": "LlamaTokenizer", "add_eos_token": True, "pad_token": "</s>"},
    )
    write(
        folder / "1_Pooling/config.json",
        {"word_embedding_dimension": 64, **{f"pooling_mode_{f}": f == FLAGS[-1] for f in FLAGS}},
    )
    write(folder / "sentence_bert_config.json", {"max_seq_length": 128, "do_lower_case": False})
    write(
        folder / "config_sentence_transformers.json",
        {"prompts": PROMPTS, "default_prompt_name": None},
    )
    kinds = ("Transformer", "Pooling", "Normalize")
    modules = [
        {
            "idx": i,
            "name": str(i),
            "path": f"{i}_{kind}" if i else "",
            "type": f"sentence_transformers.models.{kind}",
        }
        for i, kind in enumerate(kinds)
    ]
    write(folder / "modules.json", modules)
    return folder


def write(path: Path, content: object) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content))


def last_states(model: torch.nn.Module, ids: list[list[int]]) -> np.ndarray:
    """Unit vectors of ids, one text at a time."""
    with torch.no_grad():
        states = torch.stack([model(torch.tensor([each])).last_hidden_state[0, -1] for each in ids])
    return torch.nn.functional.normalize(states, dim=-1).numpy()


def test_a_published_folder_loads_with_its_pooling_limit_and_prompts(published):
    assert len(list(published.glob("model-*.safetensors"))) > 3
    ours = Embedder.from_pretrained(published, dtype="float32")
    assert (ours.settings.pooling, ours.settings.limit, ours.settings.prompts) == (
        "last",
        128,
        PROMPTS,
    )
    ids = ours.tokenize(TEXTS, TASK)
    assert all(each[0] == 1 and each[-1] == 2 for each in ids)
    theirs = AutoModel.from_pretrained(published, dtype=torch.float32)
    found = ours.encode(TEXTS, instruction=TASK)
    assert np.sum(found * last_states(theirs, ids), axis=-1).min() >= 0.99999
    # The names of its prompts are its own: without one of the name `query` there is none, as in sentence-transformers.
    options = {"dtype": torch.float32}
    assert not SentenceTransformer(
        str(published), device="cpu", local_files_only=True, model_kwargs=options
    ).prompts["query"]
    np.testing.assert_array_equal(ours.encode_query(TEXTS), ours.encode(TEXTS))


def test_an_adapter_of_peft_on_it_is_read_with_what_its_base_says(published, tmp_path):
    torch.manual_seed(1)
    config = peft.LoraConfig(
        r=3,
        lora_alpha=7,
        target_modules="all-linear",
        task_type="FEATURE_EXTRACTION",
        use_rslora=True,
    )
    model = peft.get_peft_model(AutoModel.from_pretrained(published, dtype=torch.float32), config)
    for name, value in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(value, std=0.05)
    model.save_pretrained(tmp_path)
    ours = Embedder.from_pretrained(tmp_path, dtype="float32")
    assert (ours.settings.pooling, ours.settings.limit, ours.settings.prompts) == (
        "last",
        128,
        PROMPTS,
    )
    wanted = last_states(model.eval(), ours.tokenize(TEXTS))
    assert np.sum(ours.encode(TEXTS) * wanted, axis=-1).min() >= 0.99999
    base = last_states(
        AutoModel.from_pretrained(published, dtype=torch.float32), ours.tokenize(TEXTS)
    )
    assert np.sum(base * wanted, axis=-1).max() < 0.999
