"""Folders of sentence-transformers mean here what they mean there, module by module, or are refused in one line."""

import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer

from e5jax.cli import main
from e5jax.errors import ConfigError
from e5jax.inference.embedder import Embedder
from e5jax.mine.mine import mine
from e5jax.mine.settings import Mining
from tests.inference import odd_models
from tests.inference.odd_models import TEXTS, Case

PLAIN = Case(
    ("lasttoken",),
    True,
    ("Normalize",),
    "Tanh",
    False,
    None,
    None,
    None,
    "both",
    False,
    "mistral",
    (),
)
# Read here, though sentence-transformers does not read them, or not every text with them.
LENIENT = {
    "epsilon as text",
    "layers as text",
    "token beyond",
    "no prompts file",
    "prompts null",
    "no tokenizer config",
}
SLICE = 3  # of the 200 that `python -m tests.inference.odd_models` tries


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("plain") / "model"
    odd_models.write(PLAIN, folder, 1)
    return folder


@pytest.mark.filterwarnings("ignore")  # of sentence-transformers, about what is odd in the folder
def test_some_of_the_generated_folders_are_equal_or_refused_in_one_line(tmp_path):
    for number, (case, verdict) in enumerate(odd_models.tried(range(SLICE), 0, tmp_path)):
        assert not verdict.startswith("FAULT"), f"folder {number}: {verdict}: {case}"


@pytest.mark.filterwarnings("ignore")
def test_every_module_and_every_mode_in_one_folder_gives_their_vectors(tmp_path):
    case = PLAIN._replace(
        pooling=("max", "cls", "weightedmean", "lasttoken", "mean_sqrt_len_tokens", "mean"),
        include_prompt=False,
        behind=("Dropout", "Normalize", "Dense", "LayerNorm", "Dense"),
        activation="GELU",
        residual=True,
        default_prompt="other",
        similarity="dot",
        oddities=("eos list", "bos null", "lower"),
    )
    odd_models.write(case, tmp_path / "model", 5)
    assert odd_models.verdict(case, tmp_path / "model") == "equal"


@pytest.mark.parametrize("name", sorted(odd_models.ODDITIES.keys() - odd_models.READABLE - LENIENT))
def test_what_is_not_supported_is_one_line_that_names_the_file(plain, tmp_path, name):
    folder = odd_models.copied(plain, tmp_path / "model")
    odd_models.ODDITIES[name](folder)
    with pytest.raises(ConfigError, match=str(folder)) as caught:
        Embedder.from_pretrained(folder)
    assert "\n" not in str(caught.value)


def test_one_text_gives_one_vector_and_one_list_of_ids(plain):
    model = Embedder.from_pretrained(plain, dtype="float32")
    for encode in (model.encode, model.encode_query, model.encode_document):
        one = encode(TEXTS[0])
        assert one.shape == (model.dimension,)
        np.testing.assert_array_equal(one, encode([TEXTS[0]])[0])
    assert model.tokenize(TEXTS[0]) == model.tokenize([TEXTS[0]])[0]
    assert model.similarity(model.encode(TEXTS[0]), model.encode(TEXTS[:3])).shape == (1, 3)
    with pytest.raises(TypeError, match=r"texts\[1\] is int; every text must be a str"):
        model.encode(["a", 1])


def test_an_id_beyond_the_embedding_names_the_text_and_the_token(plain, tmp_path):
    folder = odd_models.copied(plain, tmp_path / "model")
    odd_models.token(folder, "<<q>>", 329)
    model = Embedder.from_pretrained(folder)
    model.encode(["no such token"])
    with pytest.raises(
        ConfigError,
        match=r"texts\[1\] has the token '<<q>>' \(id 329\), and the model embeds only ids below 329",
    ):
        model.encode(["fine", "a <<q>> b"])


def test_a_limit_beyond_the_positions_is_refused_with_both_numbers(plain):
    with pytest.raises(ConfigError, match=r"limit=129: the model has 128 positions"):
        Embedder.from_pretrained(plain, limit=129)


def test_without_a_limit_of_its_own_a_folder_has_its_tokenizers_up_to_its_positions(plain):
    theirs = SentenceTransformer(
        str(plain), device="cpu", local_files_only=True, model_kwargs={"dtype": torch.float32}
    )
    assert Embedder.from_pretrained(plain).settings.limit == theirs.max_seq_length == 128


def test_vectors_to_search_have_unit_length_for_cosines_and_their_own_for_products(plain, tmp_path):
    folder = odd_models.copied(plain, tmp_path / "model")
    entries = json.loads((folder / "modules.json").read_text())
    (folder / "modules.json").write_text(json.dumps(entries[:2]))
    model = Embedder.from_pretrained(folder, dtype="float32")
    raw = model.encode(TEXTS)
    assert np.abs(np.linalg.norm(raw, axis=1) - 1).max() > 0.1
    np.testing.assert_allclose(
        np.linalg.norm(model.for_dot_products().encode(TEXTS), axis=1), 1, atol=1e-6
    )
    np.testing.assert_allclose(
        np.linalg.norm(model.encode(TEXTS, normalise=True), axis=1), 1, atol=1e-6
    )
    odd_models.edit(folder, "config_sentence_transformers.json", similarity_fn_name="dot")
    np.testing.assert_allclose(
        Embedder.from_pretrained(folder, dtype="float32").for_dot_products().encode(TEXTS),
        raw,
        atol=1e-6,
    )
    odd_models.edit(folder, "config_sentence_transformers.json", similarity_fn_name="manhattan")
    with pytest.raises(ConfigError, match="similarity_fn_name='manhattan'"):
        Embedder.from_pretrained(folder).for_dot_products()


def test_the_generator_draws_the_same_case_for_a_number():
    assert odd_models.draw(random.Random("0 3")) == odd_models.draw(random.Random("0 3"))


def test_dimensions_of_the_folder_are_cut_as_there_and_those_asked_for_are_normalised_again(
    plain, tmp_path
):
    folder = odd_models.copied(plain, tmp_path / "model")
    odd_models.edit(folder, "config_sentence_transformers.json", truncate_dim=8)
    theirs = SentenceTransformer(
        str(folder), device="cpu", local_files_only=True, model_kwargs={"dtype": torch.float32}
    )
    cut, unit = theirs.encode(TEXTS), theirs.encode(TEXTS, normalize_embeddings=True)
    assert np.linalg.norm(cut, axis=1).max() < 0.9
    model = Embedder.from_pretrained(folder, dtype="float32")
    np.testing.assert_allclose(model.encode(TEXTS), cut, atol=1e-5)
    for vectors in (
        model.encode(TEXTS, dimensions=8),
        model.encode(TEXTS, normalise=True),
        model.for_dot_products().encode(TEXTS),
    ):
        np.testing.assert_allclose(vectors, unit, atol=1e-5)
    (tmp_path / "texts.jsonl").write_text(
        "".join(json.dumps({"text": text}) + "\n" for text in TEXTS)
    )
    arguments = ["encode", f"--model={folder}", f"--input={tmp_path / 'texts.jsonl'}"]
    assert main([*arguments, f"--output={tmp_path / 'vectors.npy'}", "--compute=float32"]) == 0
    np.testing.assert_allclose(np.load(tmp_path / "vectors.npy"), cut, atol=1e-5)
    assert (
        main(
            [
                *arguments,
                f"--output={tmp_path / 'bits.npy'}",
                "--precision=ubinary",
                "--compute=float32",
            ]
        )
        == 0
    )
    np.testing.assert_array_equal(
        np.load(tmp_path / "bits.npy"), model.encode(TEXTS, precision="ubinary")
    )


@pytest.mark.parametrize("include", [True, False])
def test_every_text_can_have_its_own_prompt(plain, tmp_path, include):
    folder = odd_models.copied(plain, tmp_path / "model")
    odd_models.edit(folder, "1_Pooling/config.json", include_prompt=include, pooling_mode="mean")
    theirs = SentenceTransformer(
        str(folder), device="cpu", local_files_only=True, model_kwargs={"dtype": torch.float32}
    )
    prompts = ["Other ", "", "Other ", "passage: ", ""]
    model = Embedder.from_pretrained(folder, dtype="float32")
    wanted = [
        theirs.encode(text, prompt=prompt) for text, prompt in zip(TEXTS, prompts, strict=True)
    ]
    np.testing.assert_allclose(model.encode(TEXTS, prompt=prompts), wanted, atol=1e-5)
    with pytest.raises(ConfigError, match="5 texts and 2 prompts"):
        model.encode(TEXTS, prompt=prompts[:2])


def test_mined_queries_have_the_folders_own_prompts(plain, tmp_path):
    model = Embedder.from_pretrained(plain, dtype="float32").for_dot_products()
    theirs = SentenceTransformer(
        str(plain), device="cpu", local_files_only=True, model_kwargs={"dtype": torch.float32}
    )
    passages = [text.strip() for text in TEXTS]
    records = [
        {"id": "a", "query": "a", "positives": [passages[0]]},
        {"id": "b", "query": "word", "positives": [passages[1]]},
    ]
    records[1]["instruction"] = "find it"
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(each) + "\n" for each in records))
    (tmp_path / "corpus.jsonl").write_text(
        "".join(json.dumps({"text": text}) + "\n" for text in passages)
    )
    mine(
        model,
        "x",
        tmp_path / "in.jsonl",
        tmp_path / "corpus.jsonl",
        tmp_path / "out",
        Mining(negatives=1, first=1, last=5),
    )
    queries, documents = (
        np.load(next((tmp_path / "out" / "vectors").glob(f"{name}-*/000000.npy")))
        for name in ("queries", "corpus")
    )
    np.testing.assert_allclose(queries[0], theirs.encode_query("a"), atol=1e-5)
    np.testing.assert_allclose(
        queries[1], theirs.encode("word", prompt="Instruct: find it\nQuery: "), atol=1e-5
    )
    np.testing.assert_allclose(documents, theirs.encode_document(passages), atol=1e-5)
