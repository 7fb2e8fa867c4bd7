"""Disks that are full, read-only or broken: known within a step, what was saved before stays, nothing half saved counts.

E5JAX_DISKS=1 has all cases: each kind of call failing at the first, in the middle and late, once and from then on.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
FULL = bool(os.environ.get("E5JAX_DISKS"))
WORDS = {"EIO": "Input/output error", "ENOSPC": "No space left", "EROFS": "Read-only file system"}


@pytest.fixture(scope="module")
def rows(tmp_path_factory) -> list[dict]:
    """What was seen, a case each."""
    compiler = shutil.which("cc")
    if compiler is None or os.geteuid() != 0:
        pytest.skip("needs a C compiler, and to mount file systems")
    root = tmp_path_factory.mktemp("disks")
    library = root / "faulty.so"
    subprocess.run(
        [compiler, "-shared", "-fPIC", "-O1", "-o", str(library), str(HERE / "faulty.c"), "-ldl"],
        check=True,
    )
    environment = os.environ | {"LD_PRELOAD": str(library), "JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""}
    command = [sys.executable, "-m", "tests.storage.cases", str(root), *(["full"] if FULL else [])]
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stderr[-3_000:]
    first, *found = map(
        json.loads, (line for line in done.stdout.splitlines() if line.startswith("{"))
    )
    assert min(first["calls"].values()) > 0  # else nothing below could fail
    return found


def test_a_disk_that_fails_costs_the_save_and_nothing_else(rows):
    assert len(rows) >= (20 if FULL else 10)
    for row in rows:
        if row["said"]:
            assert row["left"] == [1], row
            assert row["newest"] == 1, row
            assert row["late"] <= 1, row
            assert WORDS[row["code"]] in row["said"], row
        else:  # whoever wrote has tried again
            assert not row["always"], row
            assert row["left"] == [1, 2], row
            assert row["newest"] == 2, row


def test_a_disk_that_is_mended_is_used_again(rows):
    for row in rows:
        assert row["after"] == [*row["left"], 3], row
        assert row["strange"] == [], row
