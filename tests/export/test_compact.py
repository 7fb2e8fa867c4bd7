"""An export of fewer dimensions: read alike by sentence-transformers and by us, and quantised by both."""

import json

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.util.quantization import quantize_embeddings

from e5jax.compact import ranges_of
from e5jax.embedder import Embedder
from e5jax.export.folder import write
from tests.export import small
from tests.export.small import UNVERIFIED


def test_an_export_says_how_many_dimensions_are_kept(tmp_path):
    subject = small.adapted(small.base(tmp_path / "base", small.spec()), small.spec())
    subject.run.export.dimensions = 16
    subject.run.model.pooling = "weighted_mean"
    write(subject, tmp_path / "merged", UNVERIFIED)
    said = json.loads((tmp_path / "merged/config_sentence_transformers.json").read_text())
    assert said["truncate_dim"] == 16
    theirs = SentenceTransformer(str(tmp_path / "merged"), device="cpu", model_kwargs={"dtype": torch.float32})
    ours = Embedder.from_pretrained(tmp_path / "merged")
    texts = [small.WORDS[start:] for start in range(0, 60, 3)]
    wanted = theirs.encode_query(texts, normalize_embeddings=True)
    found = ours.encode_query(texts)
    assert wanted.shape == found.shape == (20, 16)
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    ours.calibrate(texts, small.TASK)
    integers = quantize_embeddings(wanted, "int8", ranges=ranges_of(found))
    away = np.abs(ours.encode_query(texts, precision="int8").astype(int) - integers)
    assert away.max() <= 1  # floats that differ in the last digit, at the border of a step: the greatest of each number is at one
    assert away.mean() < 0.05
