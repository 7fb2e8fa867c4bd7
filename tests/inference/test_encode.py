"""Files of vectors: those of the embedder, in the order of the texts, in every format, and the same after a kill."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import load_file

from e5jax.cli import main
from e5jax.errors import CONFIG
from e5jax.inference.embedder import Embedder
from e5jax.workdir.outputs import LIST
from tests.config.test_load import ROOT
from tests.inference.test_embedder import TASK, folder, texts

__all__ = ["folder", "texts"]  # fixtures
pytestmark = pytest.mark.parametrize("folder", ["last"], indirect=True)


@pytest.fixture(scope="module")
def corpus(texts, tmp_path_factory) -> Path:
    file = tmp_path_factory.mktemp("corpus") / "corpus.jsonl"
    file.write_text(
        "".join(json.dumps({"id": f"t{i}", "text": text}) + "\n" for i, text in enumerate(texts))
    )
    return file


def run(folder: Path, corpus: Path, output: Path, *more: str) -> int:
    return main(["encode", f"--model={folder}", f"--input={corpus}", f"--output={output}", *more])


def test_every_format_holds_the_embedders_vectors_in_the_order_of_the_texts(
    folder, corpus, texts, tmp_path, capsys
):
    wanted = Embedder.from_pretrained(folder).encode(texts)
    for suffix in (".npy", ".safetensors", ".parquet"):
        assert run(folder, corpus, tmp_path / f"v{suffix}", "--shard=20") == 0
    assert f"{len(texts)} texts, 64 dimensions, float32" in capsys.readouterr().out
    table = pq.read_table(tmp_path / "v.parquet")
    assert table["id"].to_pylist() == [f"t{i}" for i in range(len(texts))]
    assert (
        int.from_bytes((tmp_path / "v.safetensors").read_bytes()[:8], "little") % 8 == 0
    )  # numbers begin at a multiple
    found = np.load(tmp_path / "v.npy")
    assert found.dtype == np.float32
    np.testing.assert_array_equal(load_file(tmp_path / "v.safetensors")["vectors"], found)
    np.testing.assert_array_equal(np.stack(table["vector"].to_numpy()), found)
    np.testing.assert_allclose(found, wanted, atol=2e-6)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        LIST,
        "v.npy",
        "v.parquet",
        "v.safetensors",
    ]


@pytest.mark.parametrize(
    ("options", "instruction", "dimensions"),
    [
        ((f"--instruction={TASK}",), TASK, None),
        (("--dimensions=8", "--dtype=float16"), None, 8),
    ],
    ids=["instruction", "short and half"],
)
def test_options_do_what_they_say(
    options, instruction, dimensions, folder, corpus, texts, tmp_path
):
    assert run(folder, corpus, tmp_path / "v.npy", *options) == 0
    found = np.load(tmp_path / "v.npy")
    wanted = Embedder.from_pretrained(folder).encode(texts, instruction, dimensions=dimensions)
    assert found.dtype == ("float16" if dimensions else "float32")
    np.testing.assert_allclose(found, wanted, atol=1e-3 if dimensions else 2e-6)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--dimensions=65",), "--dimensions=65: the model has 64"),
        (("--precision=int8",), "precision='int8': no ranges are known for 64 dimensions"),
        (("--precision=binary", "--dtype=float16"), "--dtype=float16 and --precision=binary"),
        (("--prompt=passage",), "--prompt=passage: the folder has query, document"),
        (("--field=body",), "no string `body`"),
        (("--shard=0",), "--shard=0: must be at least 1"),
        (("--output=x.csv",), "--output=x.csv: must end in .npy, .safetensors, .parquet"),
    ],
)
def test_a_wrong_option_is_one_line(options, said, folder, corpus, tmp_path, capsys):
    assert run(folder, corpus, tmp_path / "v.npy", *options) == CONFIG
    assert said in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_killed_run_goes_on_and_ends_with_the_same_bytes(folder, corpus, tmp_path):
    assert run(folder, corpus, tmp_path / "whole.npy", "--shard=8") == 0
    words = [
        "encode",
        f"--model={folder}",
        f"--input={corpus}",
        f"--output={tmp_path / 'parts.npy'}",
        "--shard=8",
    ]
    process = subprocess.Popen([sys.executable, "-m", "e5jax", *words], cwd=ROOT, env=os.environ)
    deadline = time.monotonic() + 120
    while (
        len(shards := list(tmp_path.glob(".parts.npy.parts-*/*.npy"))) < 2
        and time.monotonic() < deadline
    ):
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait(timeout=60)
    assert len(shards) >= 2
    assert not (tmp_path / "parts.npy").exists()
    kept = {file: file.stat().st_mtime_ns for file in shards}
    made = []
    encode = Embedder.encode

    def counted(self, texts, **more):
        made.append(len(texts))
        assert {file: file.stat().st_mtime_ns for file in kept} == kept  # not made again
        return encode(self, texts, **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Embedder, "encode", counted)
        assert run(folder, corpus, tmp_path / "parts.npy", "--shard=8") == 0
    assert len(made) <= 9 - len(shards)
    assert (tmp_path / "parts.npy").read_bytes() == (tmp_path / "whole.npy").read_bytes()
