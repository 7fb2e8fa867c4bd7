"""The command: a real plan for a slice that is not here, and what is said about wrong ones."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from unittest import mock

import pytest

from e5jax.cli import main

ROOT = Path(__file__).parents[2]
PAPER = str(ROOT / "configs/e5_mistral_7b.py")
TINY = """
from e5jax.config import Batch, Config, Data, Model, Optim, Scratch, Tokens

def get_config():
    sizes = Scratch(hidden=64, ff=128, layers=2, heads=4, kv_heads=2, head_size=16)
    return Config(
        data=Data(files=("none.jsonl",)),
        tokens=Tokens(vocabulary=300, limit=16),
        model=Model(scratch=sizes, dtype="float32"),
        batch=Batch(queries=16, negatives=1, chunks=2, shards=8),
        optim=Optim(steps=10, warmup_steps=1),
        stages=("train",),
    )
"""


@pytest.fixture(autouse=True)
def _environment():
    with mock.patch.dict(os.environ):
        yield


@pytest.fixture
def tiny(tmp_path):
    (tmp_path / "tiny.py").write_text(TINY, encoding="utf-8")
    return str(tmp_path / "tiny.py")


def planned(*words: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    command = [sys.executable, "-m", "e5jax", "plan", *words]
    return subprocess.run(
        command,
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=1_500,
    )


def test_the_7b_step_fits_a_v5e_4x4_slice():
    done = planned(f"--config={PAPER}", "--topology=v5e:4x4", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["fits"]
    assert found["texts"] == 3 * 2_048
    assert found["tokens_per_text"] == 512
    assert found["memory_limit_bytes"] == 15.75 * 2**30  # the compiler's own figure for a v5e chip
    assert found["memory_bytes_per_chip"] < found["memory_limit_bytes"]
    # The base in bfloat16 over 16 chips; AdamW has two moments for each trained number.
    assert found["memory_by_kind"]["base"] == pytest.approx(7.11e9 * 2 / 16, rel=1e-3)
    assert found["memory_by_kind"]["moments"] == pytest.approx(
        2 * found["memory_by_kind"]["trained"], rel=1e-6
    )
    # Every chunk is encoded twice, and attention once more for its gradient.
    assert found["flops_per_step"] / found["model_flops_per_step"] == pytest.approx(1.53, abs=0.02)
    # Three gathers of all weights a chunk; other traffic is small beside them.
    gathers = 3 * found["chunks"] * 6_979_321_856 * 2 * 15 / 16
    assert found["collective_bytes_per_step"] == pytest.approx(gathers, rel=0.02)
    assert found["collective_bytes_by_kind_and_axis"]["all-gather"]["fsdp"] == pytest.approx(
        gathers, rel=0.02
    )


def test_too_large_a_run_is_a_report_with_the_compilers_words():
    done = planned(f"--config={PAPER}", "--topology=v5e:2x2", "--json", "--config.batch.chunks=3")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    found = json.loads(done.stdout)
    assert not found["fits"]
    assert found["memory_bytes_per_chip"] > found["memory_limit_bytes"]
    assert "RESOURCE_EXHAUSTED" in found["compiler_says"]


def test_a_cpu_is_planned_for_with_rates_measured_on_the_spot(tiny):
    done = planned(f"--config={tiny}", "--topology=cpu:2", "--config.mesh.data=2", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["chips"] == 2
    assert found["mesh"] == {"data": 2, "fsdp": 1, "tensor": 1}
    assert found["rates"]["source"] == "measured"
    assert found["flops_per_step"] == 2 * found["flops_per_step_per_chip"]
    assert found["hours"] == pytest.approx(10 / found["steps_per_hour"])


def test_short_texts_leave_chunks_empty_and_the_kept_one_is_not_encoded_twice(tiny):
    words = ("--lengths=3,4", "--config.batch.kept_chunks=1", "--config.mesh.data=1", "--json")
    done = planned(f"--config={tiny}", "--topology=cpu:1", *words)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert 48 * 3 <= found["real_tokens"] < 48 * 6
    assert (found["chunks_kept"], found["chunks_encoded_again"]) == (
        {"used": 1, "chunks": 1},
        {"used": 0, "chunks": 1},
    )
    # 8 shards × 3 rows × 16 tokens are computed in the used chunk; encoding them twice would take half as much again.
    computed = 8 * 3 * 16 / found["real_tokens"]
    assert found["flops_per_step"] / found["model_flops_per_step"] < 1.2 * computed


def test_on_a_tpu_what_is_kept_moves_from_the_chip_to_its_host(tmp_path):
    sizes = "Scratch(hidden=128, ff=256, layers=2, heads=8, kv_heads=8, head_size=128)"
    changed = (
        re.sub(r"Scratch\(hidden.*\)", sizes, TINY)
        .replace('dtype="float32"', "")
        .replace("limit=16", "limit=128")
    )
    (tmp_path / "wide.py").write_text(changed, encoding="utf-8")
    words = (
        "--lengths=40,50",
        "--config.batch.chunks=6",
        "--config.batch.kept_chunks=6",
        "--config.batch.kept_on=host",
        "--json",
    )
    done = planned(f"--config={tmp_path / 'wide.py'}", "--topology=v5e:1x1", *words)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    rows, tokens = 48, 48 * 128  # of all six chunks
    layer = 128 + 3 * 8 * 128 + 128 + 2 * 256  # x; q, k, v; wo; gate, up
    kept = (
        2 * tokens * (2 * layer + 128) + 4 * rows * 8 * 128
    )  # two layers, the last x, pooled vectors
    assert found["host_memory_bytes_per_chip"] == pytest.approx(kept, rel=1e-3)
    assert (
        found["memory_by_kind"]["temporaries"] < kept / 2
    )  # one chunk's, and what it is computed from
    used = found["chunks_kept"]["used"]
    assert (found["to_host_bytes_per_step"], found["from_host_bytes_per_step"]) == pytest.approx(
        (kept, kept * used / 6), rel=1e-3
    )
    assert 0 < used < 6


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--topology=v9:4x4"], "--topology=v9:4x4"),
        (["--topology=v5e:4"], "2 dimensions"),
        (["--topology=v5e:3x3"], "even numbers"),
        (["--topology=v5e:4x4", "--slices=0"], "--slices=0"),
        (["--topology=cpu:8", "--slices=2"], "one slice"),
        (["--topology=cpu:0"], "cpu:0"),
        (["--topology=cpu:8", "--lengths=40"], "--lengths=40"),
        (["--topology=cpu:8", "--lengths=40,0"], "at least 3"),
        (["--topology=cpu:8", "--search", "--limit=0"], "--limit=0"),
        (["--topology=cpu:8", "--search", "--headroom=100"], "--headroom=100"),
        (["--topology=cpu:8", "--config.mesh.fsdp=4"], "config.mesh"),
        (["--topology=cpu:8", "--config.optim.lerning_rate=1"], "did you mean learning_rate?"),
        (["--topology=cpu:8", "--config.batch.shards=3"], "config.batch"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_is_wrong_is_one_line_and_exit_code_3(words, said, tiny, capsys):
    assert main(["plan", f"--config={tiny}", *words]) == 3
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line


def test_a_missing_libtpu_is_named_with_its_pin(tiny, capsys, monkeypatch):
    monkeypatch.setattr("e5jax.plan.topology.find_spec", lambda _: None)
    assert main(["plan", f"--config={tiny}", "--topology=v5e:2x2"]) == 3
    assert "pip install 'libtpu==0.0.42.*'" in capsys.readouterr().err


def test_an_unknown_base_needs_a_folder(capsys):
    assert (
        main(
            ["plan", f"--config={PAPER}", "--topology=cpu:8", "--config.model.base=nobody/nothing"]
        )
        == 3
    )
    assert "nobody/nothing" in capsys.readouterr().err
