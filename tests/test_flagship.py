"""`configs/e5_mistral_7b.py` itself, shrunk: a mixture and a base in plain Hugging Face layout, from data to report and card."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from e5jax.data.beir import ndcg, read_retrieval
from e5jax.inference.embedder import Embedder
from tests.flags import FAST
from tests.flagship import lay_out, overrides
from tests.launch.runs import forget

ROOT = Path(__file__).parents[1]
CONFIG = str(ROOT / "configs/e5_mistral_7b.py")
NAME = "test-flagship-two"


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("flagship")
    lay_out(folder)
    return folder


def called(root: Path, *command: str) -> str:
    """What a command says, once it has ended well. Runs share their compiled programs."""
    cache = {
        "JAX_COMPILATION_CACHE_DIR": str(root / "cache"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    environment = {**os.environ, **cache, "XLA_FLAGS": FAST}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=600
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def by_hand(root: Path, folder: Path) -> float:
    """nDCG@10 of a model on the task, as the paper's protocol has it: queries with an instruction, bare documents."""
    data, model = (
        read_retrieval(root / "tasks/words"),
        Embedder.from_pretrained(folder, dtype="float32"),
    )
    documents = model.encode([one.text for one in data.corpus.values()])
    scores = model.encode([data.queries[query] for query in data.relevant], "") @ documents.T
    grades = np.array(
        [[of.get(name, 0) for name in data.corpus] for of in data.relevant.values()], np.float64
    )
    return ndcg(
        np.take_along_axis(grades, np.argsort(-scores, axis=1, kind="stable"), axis=1), grades
    )


def check(root: Path, workdir: Path, output: str) -> None:
    """The walk has come to its end, and every place says the same scores."""
    results = json.loads((workdir / "results.json").read_text())
    assert list(results["scores"]) == ["base", "trained"]
    assert results["tasks"]["words"]["splits"] == ["test"]
    scores = {system: tasks["words"]["ndcg_at_10"] for system, tasks in results["scores"].items()}
    assert 0.1 < scores["base"] < 0.95, "neither nothing nor everything is found"
    # Both are compared without an instruction, since the task has none. Sums in another order, and mteb rounds to five digits.
    assert scores["base"] == pytest.approx(by_hand(root, root / "base"), abs=1e-3)
    assert scores["trained"] == pytest.approx(by_hand(root, workdir / "export"), abs=1e-3)
    assert scores["trained"] != scores["base"]
    page, card = (workdir / "report.html").read_text(), (workdir / "export/README.md").read_text()
    for system, score in scores.items():
        assert re.search(rf"words +test +{system} .*{score:.4f}", output)
        assert f"{score:.4f}" in page
        assert re.search(rf"words \(test\) \| {system} \| .*ndcg_at_10 {score:.4f}", card)
    assert "48 training pairs, by length" in page  # 3 steps of 16


def test_the_recipe_goes_from_data_to_report_and_card_on_torch_and_then_is_complete(root):
    workdir = root / "torch"
    command = (
        sys.executable,
        "-m",
        "e5jax",
        "run",
        f"--config={CONFIG}",
        f"--workdir={workdir}",
        *overrides(root, "torch"),
    )
    check(root, workdir, called(root, *command))
    lengths = json.loads((workdir / "lengths.json").read_text())
    assert {name: len(values) for name, values in lengths.items()} == {
        "queries": 48,
        "passages": 48,
    }
    # Every set but one has instructions, which stand before queries and not before documents.
    assert np.mean(lengths["queries"]) > 2 * np.mean(lengths["passages"])
    assert called(root, *command).count("complete, nothing to do") == 3


def test_the_recipe_goes_from_data_to_report_and_card_on_jax_with_two_processes(root):
    workdir = root / "two"
    try:
        output = called(
            root,
            *(
                str(ROOT / "launch/train.sh"),
                CONFIG,
                "--target=local",
                "--num-processes=2",
                "--platform=cpu",
                "--devices=2",
            ),
            *(
                f"--python={sys.executable}",
                f"--run-name={NAME}",
                f"--workdir={workdir}",
                *overrides(root, "jax"),
            ),
        )
    finally:
        forget(NAME)
    check(root, workdir, output)
