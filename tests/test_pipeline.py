"""The quickstart, shrunk, through the real command: data, two training stages, export, evaluation, report; then again."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from e5jax.inference.embedder import Embedder
from tests.flags import FAST

ROOT = Path(__file__).parents[1]
SMALL = [
    f"--config.{name}"
    for name in [
        "data.harvest.train_pairs=400",
        "data.harvest.heldout_pairs=60",
        "data.harvest.heldout_pairs_per_package=10",
        "data.harvest.train_pairs_per_package=60",
        "pretrain.tokens.limit=24",
        "pretrain.batch.queries=16",
        "pretrain.batch.chunks=2",
        "pretrain.optim.steps=6",
        "pretrain.optim.warmup_steps=1",
        "pretrain.checkpoint.every=3",
        "tokens.limit=32",
        "batch.queries=8",
        "batch.chunks=2",
        "optim.steps=4",
        "optim.warmup_steps=1",
    ]
]


def e5jax(workdir: Path, *more: str) -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable,
        "-m",
        "e5jax",
        "run",
        "--config=configs/quickstart.py",
        f"--workdir={workdir}",
        *SMALL,
        *more,
    ]
    environment = {**os.environ, "XLA_FLAGS": FAST}
    return subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=600
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    workdir = tmp_path_factory.mktemp("runs") / "quickstart"
    done = e5jax(workdir)
    assert done.returncode == 0, done.stderr
    return workdir, done


def test_every_artifact_is_there_and_opens(finished):
    workdir, _ = finished
    for name in (
        "config.json",
        "versions.json",
        "metrics.jsonl",
        "checkpoints",
        "report.html",
        "results.json",
        "train.json",
    ):
        assert (workdir / name).exists(), name
    assert len((workdir / "metrics.jsonl").read_text().splitlines()) == 4
    assert len((workdir / "pretrain/metrics.jsonl").read_text().splitlines()) == 6
    assert not [path.name for path in workdir.rglob(".*")]  # no temporary leftovers


def test_the_results_name_all_four_systems(finished):
    workdir, done = finished
    results = json.loads((workdir / "results.json").read_text())
    ndcg = {system: tasks["heldout"]["ndcg_at_10"] for system, tasks in results["scores"].items()}
    assert list(ndcg) == ["untrained", "bm25", "stage1", "stage2"]
    assert all(0 <= value <= 1 for value in ndcg.values())
    assert ndcg["bm25"] > 0.2  # a working baseline on 60 documents
    for value in ndcg.values():
        assert f"{value:.4f}" in done.stdout
        assert f"{value:.4f}" in (workdir / "report.html").read_text()
    assert (workdir / "report.html").read_text().count("The right function is") == 6
    card = (workdir / "export" / "README.md").read_text()
    for scores in (scores for tasks in results["scores"].values() for scores in tasks.values()):
        assert f"ndcg_at_10 {scores['ndcg_at_10']:.4f}" in card


def test_every_core_that_has_rows_is_a_device(finished):
    _, done = finished
    assert done.stdout.count(f"on {min(4, os.cpu_count())} × cpu") == 2


def test_the_exported_folder_embeds(finished):
    workdir, _ = finished
    model = Embedder.from_pretrained(workdir / "export")
    assert model.encode(["read a file", ""], instruction="find it").shape == (2, model.dimension)


def test_held_out_packages_are_not_trained_on(finished):
    workdir, _ = finished
    summary = json.loads((workdir / "data/summary.json").read_text())
    assert not set(summary["train_packages"]) & set(summary["heldout_packages"])


def test_a_second_run_says_that_all_is_complete_and_trains_nothing(finished):
    workdir, _ = finished
    before = (workdir / "metrics.jsonl").read_bytes()
    again = e5jax(workdir)
    assert again.returncode == 0, again.stderr
    assert again.stdout.count("complete, nothing to do") == 5
    assert (workdir / "metrics.jsonl").read_bytes() == before


def test_another_configuration_in_the_same_directory_is_refused_by_field(finished):
    workdir, _ = finished
    refused = e5jax(workdir, "--config.optim.learning_rate=0.5")
    assert refused.returncode == 3
    assert "config.optim.learning_rate: 0.002 -> 0.5" in refused.stderr
    assert "Traceback" not in refused.stderr
