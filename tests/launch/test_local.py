"""The wrapper itself, with several processes of the real trainer; the short version is in tests/faults, whose runs it shares."""

import hashlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from launch.launcher import record
from tests.faults.material import ROOT
from tests.launch.runs import ASKED, comes_to, pid_of, said

pytestmark = pytest.mark.skipif(ASKED not in os.environ, reason=f"{ASKED} is not set")
TWO = "--num-processes=2"
# The quickstart's first stages, with fewer pairs and steps, and rows for eight devices.
QUICKSTART = (
    *("configs/quickstart.py", TWO, "--platform=cpu", "--devices=4", f"--python={sys.executable}"),
    *(
        "--config.stages=('data','pretrain')",
        "--config.data.harvest.train_pairs=3000",
        "--config.pretrain.data.harvest.train_pairs=3000",
    ),
    *(
        "--config.pretrain.optim.steps=12",
        "--config.pretrain.checkpoint.every=4",
        "--config.pretrain.batch.shards=8",
    ),
    *("--config.batch.shards=8", "--config.pretrain.optim.warmup_steps=2"),
)


def test_the_supervisor_goes_on_when_one_process_was_told_and_the_run_ends_with_the_same_bits(
    place,
):
    run = place.folder / "test-local-supervised"
    child = place.start("test-local-supervised", TWO, "--max-restarts=2")
    comes_to(run, 1, 3)
    os.kill(pid_of(run, 1), signal.SIGTERM)
    assert "restart 1 in 1 s" in said(child, 0)
    ((_, state),) = record.states(run)
    assert [code for code, _ in state.attempts] == [75, 0]
    said(place.start("test-local-exported", TWO), 0)
    whole, supervised = place.digests("test-local-exported", "test-local-supervised")
    assert supervised == whole
    changed = place.start("test-local-supervised", TWO, "--config.seed=5")
    assert "holds a run with another configuration (config.seed: 0 -> 5)" in said(changed, 3)


def quickstart(folder: Path, *options: str) -> subprocess.Popen[str]:
    command = [
        str(ROOT / "launch/train.sh"),
        *QUICKSTART,
        f"--workdir={folder}",
        f"--run-name={folder.name}",
        *options,
    ]
    around = {**os.environ, "XLA_FLAGS": ""}
    return subprocess.Popen(
        command, env=around, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def test_the_quickstart_itself_is_stopped_and_ends_with_the_same_bits(tmp_path):
    whole, told = tmp_path / "test-local-quick", tmp_path / "test-local-quick-told"
    child = quickstart(told)
    comes_to(told, 1, 3)
    child.send_signal(signal.SIGTERM)
    said(child, 75)
    assert "resumes at step" in said(quickstart(told), 0)
    said(quickstart(whole), 0)
    one, other = (
        hashlib.sha256((run / "pretrain/export/model.safetensors").read_bytes()).hexdigest()
        for run in (whole, told)
    )
    assert one == other
