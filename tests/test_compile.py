"""The 7B recipe compiles ahead of time for a TPU v5e 4x4 slice and fits its memory; no TPU is needed."""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
LIMIT = 15.75 * 2**30  # bytes a v5e chip leaves to programs, in the compiler's own words


def test_the_7b_step_fits_a_v5e_4x4_slice(tmp_path):
    output = tmp_path / "compile_7b.json"
    environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    command = [sys.executable, str(ROOT / "benchmarks/compile_7b.py"), f"--output={output}"]
    subprocess.run(command, cwd=ROOT, env=environment, check=True, timeout=900)
    found = json.loads(output.read_text())
    assert found["texts"] == 3 * 2_048
    assert found["tokens_a_text"] == 512
    assert found["trained_parameters"] == 41_943_040
    assert found["peak_bytes_per_chip"] < LIMIT
    # The base (bfloat16, over 16 chips), float32 adapters and moments are certainly there.
    assert found["argument_bytes_per_chip"] > 7.1e9 * 2 / 16
