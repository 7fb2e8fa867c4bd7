"""Reading a base: how much memory it takes besides the arrays."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SIZES = [
    "--layers=6",
    "--hidden=1024",
    "--ff=7168",
]  # 0.37 GB, most of it in three stacked variables


@pytest.fixture(scope="module")
def rows(tmp_path_factory) -> dict[tuple[str, str], dict]:
    """What the benchmark finds, each in a process of its own, by mesh and kind of weights."""
    output = tmp_path_factory.mktemp("loading") / "loading.json"
    command = [
        sys.executable,
        str(ROOT / "benchmarks/loading.py"),
        *SIZES,
        "--kinds",
        "bfloat16",
        "int4",
        f"--output={output}",
    ]
    subprocess.run(
        command, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, check=True, timeout=600
    )
    return {(row["mesh"], row["weights"]): row for row in json.loads(output.read_text())["rows"]}


@pytest.mark.parametrize("mesh", ["fsdp=8", "2x2x2"])
@pytest.mark.parametrize("kind", ["bfloat16", "int4"])
def test_a_base_is_read_with_little_more_memory_than_its_arrays(rows, mesh, kind):
    row = rows[mesh, kind]
    assert row["unique_bytes"] > 1e8
    # One slice of a variable, one block of float32 and one mapped tensor; a whole variable is 88 MB, the arrays 370 MB.
    assert row["peak_minus_arrays"] <= 1.5e8
    if kind == "bfloat16":  # copies of an array on several devices share memory
        assert row["peak_minus_unique"] <= 1.5e8
