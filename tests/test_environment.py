"""Training, export and encoding run in an environment that has neither torch nor TensorFlow nor transformers.

Nor has it what writes prepared sets and reads the formats of others: training reads a prepared folder without them.
"""

import json
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from e5jax.data.tokenizer import train_tokenizer
from e5jax.datasets.prepare import Order, prepare
from e5jax.datasets.public_sets import named

ROOT = Path(__file__).parents[1]
ABSENT = (
    *(
        "torch",
        "functorch",
        "torchgen",
        "tensorflow",
        "keras",
        "transformers",
        "sentence_transformers",
        "mteb",
    ),
    *("tensorflow_datasets", "datasets", "pyarrow"),
)

CONFIG = """
from e5jax.config import *

def get_config():
    return Config(
        stages=("train", "export"),
        data=Data(files=("train.jsonl", "prepared/synthetic")),
        tokens=Tokens(tokenizer="tokenizer.json", limit=16),
        model=Model(scratch=Scratch(hidden=32, ff=64, layers=2, heads=4, kv_heads=2, head_size=8), dtype="float32"),
        batch=Batch(queries=4, negatives=0, chunks=2),
        optim=Optim(learning_rate=1e-2, steps=2, warmup_steps=0),
        export=Export(dtype="float32"),
    )
"""


@pytest.fixture
def without(tmp_path) -> dict[str, str]:
    """Environment variables of an interpreter whose packages are all of this one's but those in ABSENT."""
    packages = tmp_path / "site-packages"
    packages.mkdir()
    for item in Path(sysconfig.get_paths()["purelib"]).iterdir():
        if item.name.split(".")[0].split("-")[0].lower() not in ABSENT:
            (packages / item.name).symlink_to(item)
    return {**os.environ, "PYTHONPATH": f"{ROOT}:{packages}", "XLA_FLAGS": ""}


def python(
    environment: dict[str, str], folder: Path, *arguments: str
) -> subprocess.CompletedProcess[str]:
    # -S: the interpreter's own site-packages stay out, PYTHONPATH is all there is.
    return subprocess.run(
        [sys.executable, "-S", *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("package", ["torch", "tensorflow", "transformers", "tensorflow_datasets"])
def test_the_environment_really_lacks_them(package, without, tmp_path):
    found = python(without, tmp_path, "-c", f"import {package}")
    assert found.returncode == 1
    assert "ModuleNotFoundError" in found.stderr


def test_train_export_and_encode_run_there(without, tmp_path):
    texts = [f"query {i} about a file" for i in range(8)]
    train_tokenizer(texts, 300).save(str(tmp_path / "tokenizer.json"))
    lines = [
        json.dumps({"id": str(i), "query": text, "positives": [f"answer {i}"]})
        for i, text in enumerate(texts)
    ]
    (tmp_path / "train.jsonl").write_text("\n".join(lines[:4]) + "\n")
    (tmp_path / "rest.jsonl").write_text("\n".join(lines[4:]) + "\n")
    prepare(Order(named("synthetic"), [tmp_path / "rest.jsonl"]), tmp_path / "prepared")
    (tmp_path / "config.py").write_text(CONFIG)
    trained = python(without, tmp_path, "-m", "e5jax", "run", "--config=config.py", "--workdir=run")
    assert trained.returncode == 0, trained.stderr
    encoded = python(
        without,
        tmp_path,
        "-c",
        "import e5jax; print(e5jax.Embedder.from_pretrained('run/export').encode(['x']).shape)",
    )
    assert encoded.stdout.strip().endswith("(1, 32)"), encoded.stderr
