"""The exported folder gives the checkpoint's vectors in transformers, sentence-transformers and Embedder."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from transformers import AutoModel, AutoTokenizer

from e5jax.checkpoint import Checkpoints
from e5jax.config import Export, Lora, Model, Tokens, Training
from e5jax.data.vocabulary import train_tokenizer
from e5jax.embedder import Embedder
from e5jax.errors import ConfigError
from e5jax.export.folder import export, write
from e5jax.model import hf
from e5jax.model.blueprint import Blueprint
from e5jax.model.families import read_spec
from e5jax.model.spec import Spec
from e5jax.retention import Retention
from e5jax.tokens import TextTokenizer
from e5jax.workdir import Workdir
from tests import tiny

TASK = "Given a question, retrieve the answer"
LIMIT = 48
WORDS = "the quick brown fox jumps over a lazy dog while reading files from disk and closing them"
SCRIPTS = [
    "",
    " ",
    "hello world",
    "Größe und Maß",
    "скорость света",
    "日本語のテキスト",
    "مرحبا بالعالم",
    "שלום עולם",
    "नमस्ते दुनिया",
    "สวัสดีชาวโลก",
    "안녕하세요 세계",
    "emoji 🙂🚀 and \u200b zero width",
    "</s>",
    "<s> inside </s> a text <unk>",
    "line\nbreaks\tand  spaces ",
    "readFileHeader read_file_header",
    "word " * 400,
]
TEXTS = SCRIPTS + [f"{script} {number}" for number in range(2) for script in SCRIPTS][: 50 - len(SCRIPTS)]


@pytest.fixture(scope="module")
def tokenizer() -> TextTokenizer:
    made = train_tokenizer([WORDS] * 3, 400)
    return TextTokenizer(made, 1, 2, LIMIT)


def spec_for(tokenizer: TextTokenizer) -> Spec:
    return tiny.SPEC._replace(vocab=tokenizer.tokenizer.get_vocab_size(), window=16)


def place(of: Blueprint, values: dict[str, np.ndarray]) -> dict[str, jax.Array]:
    on = tiny.mesh(1, 1, 1)
    wanted = of.abstract(of.leaves, on, "float32")
    return {name: jax.device_put(values[name], leaf.sharding) for name, leaf in wanted.items()}


def run_with(pooling: str, lora: Lora | None) -> Training:
    return Training(
        model=Model(base="x", pooling=pooling, dtype="float32"),
        tokens=Tokens(limit=LIMIT),
        lora=lora,
        export=Export(dtype="float32", task=TASK),
    )


@pytest.fixture(scope="module", params=["last", "mean"])
def folders(request, tokenizer, tmp_path_factory) -> tuple[Path, Path]:
    """(base, merged): the merged one is the base with both factors of every adapter non-zero."""
    root = tmp_path_factory.mktemp("export")
    spec = spec_for(tokenizer)
    full = tiny.made(spec, lora=None)
    numbers = place(full, tiny.numbers(full))
    write(run_with(request.param, None), None, full, numbers, tokenizer, 0, root / "base")
    adapted = tiny.made(spec)
    trained = {name: value for name, value in place(adapted, tiny.numbers(adapted, seed=1)).items() if "lora" in name}
    write(run_with(request.param, tiny.LORA), root / "base", adapted, trained, tokenizer, 7, root / "merged")
    return root / "base", root / "merged"


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.sum(a * b, axis=-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1)


@pytest.mark.parametrize("instruction", [None, TASK])
def test_three_libraries_give_the_same_vectors_and_ids(folders, instruction):
    _, folder = folders
    ours = Embedder.from_pretrained(folder)
    theirs = SentenceTransformer(str(folder), local_files_only=True, device="cpu")
    prefix = theirs.prompts["query"] if instruction else ""
    assert not instruction or prefix == f"Instruct: {TASK}\nQuery: "
    texts = [prefix + text for text in TEXTS]
    ids = ours.tokenize(TEXTS, instruction)
    bare = AutoTokenizer.from_pretrained(folder)
    assert bare(texts, truncation=True).input_ids == ids
    vectors = ours.encode(TEXTS, instruction)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=-1), 1, rtol=1e-6)
    named = theirs.encode_query(TEXTS) if instruction else theirs.encode_document(TEXTS)
    assert cosines(vectors, named).min() >= 0.99999
    assert cosines(vectors, ours.encode_query(TEXTS) if instruction else ours.encode_document(TEXTS)).min() >= 0.99999
    assert cosines(vectors, with_transformers(folder, bare, texts)).min() >= 0.99999


def with_transformers(folder: Path, tokenizer, texts: list[str]) -> np.ndarray:
    """The recipe of the model card."""
    model = AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    batch = tokenizer(texts, truncation=True, padding=True, return_tensors="pt")
    with torch.no_grad():
        hidden = model(**batch).last_hidden_state
    mask = batch.attention_mask
    if json.loads((folder / "1_Pooling/config.json").read_text())["pooling_mode_mean_tokens"]:
        return ((hidden * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)).numpy()
    return hidden[torch.arange(len(texts)), mask.sum(1) - 1].numpy()


def test_ids_have_one_bos_and_one_eos_and_keep_the_limit(folders):
    ours = Embedder.from_pretrained(folders[1])
    for ids in ours.tokenize(TEXTS, TASK):
        assert ids[0] == 1
        assert ids[-1] == 2
        assert ids.count(1) == ids.count(2) == 1
        assert len(ids) <= LIMIT


def test_merged_weights_are_the_base_plus_the_scaled_product(folders, tokenizer):
    base, merged = (hf.headers(folder) for folder in folders)
    adapted = tiny.numbers(tiny.made(spec_for(tokenizer)), seed=1)
    name = "layers.1.mlp.gate_proj.weight"
    low = adapted["layers/ff/gate/lora_a"][1] @ adapted["layers/ff/gate/lora_b"][1]
    np.testing.assert_allclose(hf.read(merged[name]), hf.read(base[name]) + 2.0 * low.T, atol=1e-6)
    np.testing.assert_array_equal(hf.read(merged["embed_tokens.weight"]), hf.read(base["embed_tokens.weight"]))


def test_similarity_is_cosine(folders):
    ours = Embedder.from_pretrained(folders[1])
    vectors = ours.encode(["one", "two", "three"])
    np.testing.assert_allclose(ours.similarity(vectors, vectors).diagonal(), 1, rtol=1e-6)


def test_nothing_in_the_folder_is_code_or_pickle(folders):
    names = {path.suffix for path in folders[1].rglob("*") if path.is_file()}
    assert names == {".json", ".safetensors", ".md"}


def test_exporting_without_a_checkpoint_names_the_directory(tokenizer, tmp_path):
    with pytest.raises(ConfigError, match="no sound checkpoint"):
        export(run_with("last", tiny.LORA), None, spec_for(tokenizer), tokenizer, Workdir(tmp_path), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_checkpoint_is_merged_into_its_base(folders, tokenizer, tmp_path):
    base, merged = folders
    pooling = "mean" if json.loads((base / "1_Pooling/config.json").read_text())["pooling_mode_mean_tokens"] else "last"
    adapted = tiny.made(spec_for(tokenizer))
    trained = {name: value for name, value in place(adapted, tiny.numbers(adapted, seed=1)).items() if "lora" in name}
    with Checkpoints(tmp_path / "checkpoints", Retention(1)) as checkpoints:
        checkpoints.save(7, trained, {"step": np.int32(7)}, {})
    step = export(run_with(pooling, tiny.LORA), base, read_spec(base), tokenizer, Workdir(tmp_path), tmp_path / "out")
    assert step == 7
    assert (tmp_path / "out/model.safetensors").read_bytes() == (merged / "model.safetensors").read_bytes()


def test_bfloat16_export_stays_close(folders, tokenizer, tmp_path):
    base, merged = folders
    run = run_with("last", None)
    run.export.dtype = "bfloat16"
    full = tiny.made(spec_for(tokenizer), lora=None)
    write(run, None, full, place(full, tiny.numbers(full)), tokenizer, 0, tmp_path / "half")
    ours, reference = (Embedder.from_pretrained(folder, dtype="float32") for folder in (tmp_path / "half", base))
    if ours.settings.pooling == reference.settings.pooling:
        # bfloat16 keeps 8 bits of each weight
        assert cosines(ours.encode(TEXTS), reference.encode(TEXTS)).min() >= 0.999
    assert Embedder.from_pretrained(tmp_path / "half").settings.dtype == "bfloat16"
    assert merged.is_dir()
