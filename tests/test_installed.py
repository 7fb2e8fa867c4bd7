"""Each extra, installed alone, runs the commands that the documentation names for it.

Asked for by E5JAX_EXTRAS=all, or by names such as E5JAX_EXTRAS=base,eval: an environment takes a minute or more, and up to 2 GB.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.config.test_load import ROOT
from tests.mine import small
from tests.test_edges import CONFIG, write

ASKED = os.environ.get("E5JAX_EXTRAS", "")
TORCH = "torch==2.13.0"  # first: of others, pip would fetch gigabytes for GPUs
E5JAX, PYTHON = ".venv/bin/e5jax", ".venv/bin/python"
MODEL, EVAL = "--model={at}/model", "--tasks={at}/task"
TRAIN = ("train", "--config={at}/config.py", "--workdir={at}/run")
COMMANDS: dict[str, list[tuple[str, ...]]] = {
    "base": [
        (E5JAX, "--version"),
        (E5JAX, "doctor", "--workdir={at}"),
        (E5JAX, *TRAIN),
        (E5JAX, *TRAIN),
        (E5JAX, "checkpoints", "verify", "--workdir={at}/run"),
        (E5JAX, "checkpoints", "show", "--workdir={at}/run"),
        (E5JAX, "export", "--workdir={at}/run", "--output={at}/export", "--no-verify"),
        (E5JAX, "encode", MODEL, "--input={at}/texts.jsonl", "--output={at}/vectors.npy"),
        (E5JAX, "encode", MODEL, "--input={at}/texts.jsonl", "--output={at}/vectors.safetensors"),
        (E5JAX, "calibrate", MODEL, "--input={at}/texts.jsonl"),
        (E5JAX, "mine", MODEL, "--input={at}/records.jsonl", "--corpus={at}/corpus.jsonl", "--output={at}/mined"),
        (E5JAX, "plan", "--config={at}/config.py", "--topology=cpu:1"),
        (PYTHON, "-c", "import e5jax; print(e5jax.Embedder.from_pretrained('{at}/model').encode(['x']).shape)"),
    ],
    "eval": [
        ("launch/eval.sh", "{at}/model", EVAL, "--output={at}/torch"),
        ("launch/eval.sh", "{at}/model", EVAL, "--output={at}/jax", "--backend=jax"),
        (E5JAX, "eval", "--report", "--output={at}/torch", "--beside=jax={at}/jax/mteb", "--data", "{at}/cleaned"),
        (E5JAX, "eval", "--texts", EVAL, "--output={at}/texts"),
        (E5JAX, "compact", MODEL, "--task={at}/task", "--output={at}/compact", "--rows=100"),
        (E5JAX, *TRAIN),
        (E5JAX, "export", "--workdir={at}/run", "--output={at}/export"),
    ],
    "data": [
        (E5JAX, "data", "convert", "--input={at}/records.jsonl", "--output={at}/converted.jsonl"),
        (E5JAX, "data", "clean", "--input={at}/records.jsonl", "--output={at}/clean", "--evaluation={at}/texts.jsonl"),
        (E5JAX, "data", "inspect", "--input={at}/clean/data/*.jsonl", "--output={at}/page.html"),
        (E5JAX, "data", "validate", "--input={at}/records.jsonl"),
        (E5JAX, "data", "prepare", "--list"),
        (E5JAX, "data", "prepare", "synthetic", "--from={at}/records.jsonl", "--output={at}/prepared"),
        (E5JAX, "data", "shares", "--config={at}/config.py"),
        (E5JAX, "encode", MODEL, "--input={at}/texts.jsonl", "--output={at}/vectors.parquet"),
    ],
    "synth": [
        ("launch/synth.sh", "configs/synth_e5.py", "--output={at}/synth", "--dry-run"),
        (E5JAX, "synth", "--config=configs/synth_e5.py", "--output={at}/synth", "--dry-run"),
    ],
    "demo": [
        (PYTHON, "-m", "examples.demo_endpoint", E5JAX, "synth", "--config=configs/synth_demo.py", "--output={at}/synth"),
    ],
    "gcs": [(PYTHON, "-c", "from e5jax.storage import folder_of; folder_of('gs://bucket/run').name")],
    "s3": [(PYTHON, "-c", "from e5jax.storage import folder_of; folder_of('s3://bucket/run').name")],
}  # fmt: skip
CHOSEN = [name for name in COMMANDS if ASKED == "all" or name in ASKED.split(",")]
pytestmark = pytest.mark.skipif(
    not ASKED, reason="asked for by E5JAX_EXTRAS=all: it installs packages"
)


@pytest.fixture
def checkout(request, tmp_path) -> Iterator[Path]:
    """The repository's files with a .venv that has one extra."""
    folder = tmp_path / "e5jax"
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    for name in filter(None, listed.stdout.decode().split("\0")):
        if (ROOT / name).is_file() and not Path(name).parts[0].startswith(".venv"):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    subprocess.run([sys.executable, "-m", "venv", ".venv"], cwd=folder, check=True)
    pip = [PYTHON, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    if request.param == "eval":
        subprocess.run([*pip, TORCH], cwd=folder, check=True)
    if request.param == "base":
        subprocess.run([*pip, "--editable", "."], cwd=folder, check=True)
    else:
        subprocess.run(["launch/setup.sh", request.param], cwd=folder, check=True)
    yield folder
    shutil.rmtree(folder)


@pytest.mark.parametrize(
    ("checkout", "extra"), [(name, name) for name in CHOSEN or COMMANDS], indirect=["checkout"]
)
def test_an_extra_alone_runs_its_commands(checkout, extra, tmp_path):
    at = tmp_path / "at"
    small.model_folder(at / "model")
    small.task(at)
    write(at / "texts.jsonl", *({"id": str(i), "text": f"text {i}"} for i in range(4)))
    (at / "task" / "qrels").mkdir(parents=True)
    write(
        at / "task" / "corpus.jsonl",
        *({"_id": f"d{i}", "title": "", "text": f"document {i}"} for i in range(5)),
    )
    write(at / "task" / "queries.jsonl", {"_id": "q", "text": "a query"})
    (at / "task" / "qrels" / "test.tsv").write_text(
        "query-id\tcorpus-id\tscore\nq\td1\t1\n", encoding="utf-8"
    )
    (at / "config.py").write_text(CONFIG.format(folder=at), encoding="utf-8")
    (at / "cleaned").mkdir()
    report = {
        "examples": 1,
        "kept": 1,
        "rejected": {},
        "removed": {},
        "evaluation": {"task": {"texts": 1, "removed": 0}},
    }
    (at / "cleaned" / "clean.json").write_text(json.dumps(report), encoding="utf-8")
    inherited = {
        name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "XLA_FLAGS")
    }
    for words in COMMANDS[extra]:
        command = [word.replace("{at}", str(at)) for word in words]
        done = subprocess.run(
            command, cwd=checkout, env=inherited, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, (
            f"{' '.join(command)}: exit code {done.returncode}\n{done.stdout[-1000:]}\n{done.stderr[-3000:]}"
        )
