"""Ranges that texts give stay with the folder, and files hold what sentence-transformers makes of the same vectors and ranges."""

import json
import shutil
from pathlib import Path
from typing import get_args

import numpy as np
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import load_file
from sentence_transformers import SentenceTransformer
from sentence_transformers.util.quantization import quantize_embeddings

from e5jax.cli import main
from e5jax.config import Precision
from e5jax.errors import CONFIG, ConfigError
from e5jax.inference.embedder import Embedder
from e5jax.inference.shards import model_identity
from e5jax.inference.vector_quantization import FILE, read_ranges, save_ranges
from tests.inference.test_embedder import TASK, folder, texts
from tests.inference.test_encode import corpus, run

__all__ = ["corpus", "folder", "texts"]  # fixtures
pytestmark = pytest.mark.parametrize("folder", ["last"], indirect=True)


@pytest.fixture(scope="module")
def calibrated(folder, corpus, tmp_path_factory) -> Path:
    """With ranges for 16 dimensions and all, and 16 as its own number of them."""
    copy = tmp_path_factory.mktemp("calibrated") / "model"
    shutil.copytree(folder, copy)
    said = json.loads((copy / "config_sentence_transformers.json").read_text())
    (copy / "config_sentence_transformers.json").write_text(json.dumps(said | {"truncate_dim": 16}))
    assert main(["calibrate", f"--model={copy}", f"--input={corpus}", "--dimensions=16,64"]) == 0
    return copy


def test_ranges_are_the_least_and_greatest_of_the_vectors_of_the_texts(folder, calibrated, texts):
    found = read_ranges(calibrated)
    assert set(found) == {16, 64}
    whole = Embedder.from_pretrained(folder)
    for dimensions, ranges in found.items():
        vectors = whole.encode(texts, dimensions=dimensions)
        np.testing.assert_allclose(ranges, [vectors.min(axis=0), vectors.max(axis=0)], atol=2e-6)


FILES = {
    "int8": {"v.npy": np.load},
    "binary": {"v.parquet": lambda file: np.stack(pq.read_table(file)["vector"].to_numpy())},
    "ubinary": {"v.safetensors": lambda file: load_file(file)["vectors"]},
}


def test_vectors_and_files_are_those_of_sentence_transformers(calibrated, corpus, texts, tmp_path):
    ranges = read_ranges(calibrated)[16]
    model, theirs = (
        Embedder.from_pretrained(calibrated),
        SentenceTransformer(str(calibrated), device="cpu"),
    )
    assert (model.dimension, model.width, theirs.truncate_dim) == (16, 64, 16)
    np.testing.assert_allclose(model.encode(texts), theirs.encode(texts), atol=1e-5)
    floats, others = (
        model.encode(texts, dimensions=16),
        theirs.encode(texts, normalize_embeddings=True),
    )
    np.testing.assert_allclose(others, floats, atol=1e-5)
    np.testing.assert_allclose(others, model.encode(texts, normalise=True), atol=1e-5)
    for precision in get_args(Precision)[1:]:
        wanted = quantize_embeddings(floats, precision, ranges=ranges)
        found = model.encode(texts, precision=precision)
        assert found.dtype == wanted.dtype
        # The floats of two calls differ in the last digit: now and then one is on the other side of a step.
        assert np.mean(found == wanted) > 0.99
        assert np.mean(found == quantize_embeddings(others, precision, ranges=ranges)) > 0.99
        for file, read in FILES.get(precision, {}).items():
            assert run(calibrated, corpus, tmp_path / file, f"--precision={precision}") == 0
            stored = read(tmp_path / file)
            assert (stored.dtype, stored.shape) == (wanted.dtype, wanted.shape)
            assert np.mean(stored == wanted) > 0.99
    assert model.encode_query(texts[:3], precision="binary").shape == (3, 2)
    assert model.encode_document(texts[:3], dimensions=64, precision="int8").shape == (3, 64)
    whole = model.encode(texts[:3], TASK, dimensions=64)
    assert whole.shape == (3, 64)


def test_texts_can_be_asked_from_python(folder, texts):
    model = Embedder.from_pretrained(folder)
    with pytest.raises(
        ConfigError, match=r"precision='int8': no ranges are known for 8 dimensions"
    ):
        model.encode(texts[:2], dimensions=8, precision="int8")
    ranges = model.calibrate(texts, dimensions=8)
    assert ranges.shape == (2, 8)
    assert model.encode(texts[:2], dimensions=8, precision="int8").dtype == np.int8
    for wrong, said in (
        ({"dimensions": 65}, "dimensions=65"),
        ({"normalise": False, "precision": "binary"}, "leave normalise on"),
    ):
        with pytest.raises(ConfigError, match=said):
            model.encode(texts[:2], **wrong)
    with pytest.raises(ConfigError, match="similarity of int8 and float32"):
        model.similarity(
            model.encode(texts[:2], dimensions=8, precision="int8"), model.encode(texts[:2])
        )


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--model=nowhere",), "--model=nowhere: no such folder; ranges are stored"),
        (("--dimensions=65",), "dimensions=65: vectors have 64"),
        (("--most=1",), "--most=1: must be at least 2"),
    ],
)
def test_a_wrong_option_is_one_line(options, said, folder, corpus, capsys):
    assert main(["calibrate", f"--model={folder}", f"--input={corpus}", *options]) == CONFIG
    assert said in capsys.readouterr().err
    assert not (folder / FILE).exists()


def test_ranges_make_no_other_model_of_a_folder(folder, tmp_path):
    copy = tmp_path / "model"
    shutil.copytree(folder, copy)
    before = model_identity(copy)
    save_ranges(copy, {2: np.array([[-1, -1], [1, 1]], np.float32)}, 9)
    assert model_identity(copy) == before


def test_few_texts_are_spread_over_the_file(folder, corpus, tmp_path):
    copy = tmp_path / "model"
    shutil.copytree(folder, copy)
    assert main(["calibrate", f"--model={copy}", f"--input={corpus}", "--most=10"]) == 0
    assert json.loads((copy / FILE).read_text())["64"]["texts"] == 10
