"""A run's directory in a bucket, by an emulator of Google's storage: what counts is what was whole, and it comes back."""

import json
import os
import subprocess
import sys

import pytest

from e5jax.errors import RunError
from launch.launcher.bucket_sync import BucketSync
from tests.config.test_load import ROOT
from tests.launch import mirrored

# It stands for the run's interpreter, and notes how it was called; `fails` is in the bucket's name.
PROGRAM = """#!/bin/sh
echo "$*" >>"$0.calls"
case "$*" in *fails*) echo "no such bucket" >&2; exit 1 ;; esac
"""


def test_what_a_machine_leaves_is_there_on_the_next_one(tmp_path):
    command = [sys.executable, "-m", "tests.launch.mirrored", str(tmp_path)]
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ, capture_output=True, text=True, check=False, timeout=200
    )
    assert done.returncode == 0, done.stderr[-3_000:]
    seen = json.loads(done.stdout.splitlines()[-1])
    kept = mirrored.KEPT
    assert seen["nothing yet"] == {}
    assert seen["another machine"] == kept
    assert seen["its own stay"] == {**kept, "metrics.jsonl": "mine\n"}
    assert seen["all of it"] == seen["half"] == {**kept, "metrics.jsonl": "1\n2\n"}
    assert "'../../outside' is outside" in seen["outside"]
    assert "no-such-bucket" in seen["no bucket"]
    assert not (tmp_path.parent / "outside").exists()


def test_the_keeper_fetches_first_copies_now_and_then_and_at_the_end(tmp_path, capfd):
    program = tmp_path / "python"
    program.write_text(PROGRAM)
    program.chmod(0o755)
    sync = BucketSync(str(program), tmp_path, "gs://bucket/run", os.environ)
    sync.fetch()
    sync.tick()  # it is not time yet
    sync.finish()
    words = f"-m launch.launcher.mirror {{}} {tmp_path} gs://bucket/run\n"
    assert (tmp_path / "python.calls").read_text() == words.format("pull") + words.format("push")
    BucketSync(str(program), tmp_path, "", os.environ).finish()  # without a bucket it does nothing
    failing = BucketSync(str(program), tmp_path, "gs://fails/run", os.environ)
    with pytest.raises(
        RunError,
        match=r"gs://fails/run: no such bucket; does the bucket exist \(gcloud storage ls\), and may",
    ):
        failing.fetch()
    failing.finish()
    assert "launch: gs://fails/run: not copied: no such bucket" in capfd.readouterr().err
