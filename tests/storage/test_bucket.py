"""Checkpoints in a bucket: Google's and Amazon's storage emulated here; Orbax, TensorStore, gcsfs and s3fs as they are."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module", params=["gs", "s3"])
def seen(request) -> dict:
    """What was seen."""
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""}
    command = [sys.executable, "-m", "tests.storage.bucket", request.param]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr[-3_000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_a_bucket_keeps_the_newest_and_gives_them_back_bit_for_bit(seen):
    assert seen["kept"] == [2, 3]
    assert seen["newest"] == 3
    assert seen["restored"] == [True, True]
    assert (seen["facts"]["step"], seen["facts"]["said"]) == (3, 3)


def test_what_is_damaged_or_has_no_manifest_is_no_checkpoint(seen):
    assert seen["flipped"] == [2, True]
    assert seen["mended"] == 3
    assert seen["killed"] == 2


def test_a_writer_sets_it_aside_and_goes_on(seen):
    assert seen["after"] == [4, True, [2, 4]]
    assert seen["aside"] == ["3", "3.txt"]
    assert [("sound" in line, "quarantine" in line) for line in seen["listing"]] == [(True, False), (False, True), (True, False)]


def test_a_bucket_that_is_not_there_is_one_line_before_anything_is_computed(seen):
    said = r"\w+://no-such-bucket/run: cannot be written to \(FileNotFoundError: .*\); is there such a bucket, and may you .*"
    assert re.fullmatch(said, seen["nowhere"])
