"""A run's directory in a bucket, by an emulator of Google's storage: what counts is what was whole, and it comes back."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from e5jax.errors import RunError
from launch.launcher.host import free_port
from launch.launcher.keeper import Keeper
from tests.faults.material import ROOT

BUCKET = "gs://bucket/runs/one"
SERVE = """
import logging, sys, time
from http import server as http
from gcp_storage_emulator import server
from tests.storage.bucket import Threads
logging.disable()
http.HTTPServer = Threads
server.create_server("127.0.0.1", int(sys.argv[1]), in_memory=True, default_bucket="bucket").start()
print("ready", flush=True)
time.sleep(600)
"""


@pytest.fixture(scope="module")
def environment() -> Iterator[dict[str, str]]:
    """Of processes that find the emulator."""
    port = free_port()
    command = [sys.executable, "-c", SERVE, str(port)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        assert server.stdout is not None
        assert server.stdout.readline() == "ready\n"
        yield {**os.environ, "STORAGE_EMULATOR_HOST": f"http://127.0.0.1:{port}"}
        server.kill()


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_what_a_machine_leaves_is_there_on_the_next_one(environment, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    first, second = tmp_path / "first", tmp_path / "second"
    kept = {
        "config.json": b"{}",
        "metrics.jsonl": b"1\n",
        "export/model.safetensors": bytes(3 * 2**20),
        "launch/host-0.json": b"{}",
    }
    left = {"checkpoints/5/a": b"x", "launch/host-0.lock": b"", "launch/process-0.phase": b"step 5", ".export.tmp/half": b"x"}
    for name, data in {**kept, **left}.items():
        (first / name).parent.mkdir(parents=True, exist_ok=True)
        (first / name).write_bytes(data)
    keeper = Keeper(sys.executable, first, BUCKET, environment)
    keeper.fetch()  # there is nothing yet
    keeper.last()
    Keeper(sys.executable, second, BUCKET, environment).fetch()
    assert contents(second) == kept

    # More is added; what comes back is all of it, and a machine that has the run already keeps its own.
    (first / "metrics.jsonl").write_bytes(b"1\n2\n")
    monkeypatch.setattr("launch.launcher.keeper.EVERY", 0.0)
    again = Keeper(sys.executable, first, BUCKET, environment)
    again.tick()
    assert again._child is not None
    assert again._child.wait(60) == 0
    again._report()
    (second / "metrics.jsonl").write_bytes(b"mine\n")
    (second / "export" / "model.safetensors").unlink()
    Keeper(sys.executable, second, BUCKET, environment).fetch()
    assert contents(second) == {
        name: b"mine\n" if name == "metrics.jsonl" else data for name, data in kept.items() if "export" not in name
    }
    (second / "config.json").unlink()
    Keeper(sys.executable, second, BUCKET, environment).fetch()
    assert contents(second) == {**kept, "metrics.jsonl": b"1\n2\n"}


def test_a_bucket_that_is_not_there_is_named_with_the_fix(environment, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(ROOT)
    (tmp_path / "config.json").write_text("{}")
    keeper = Keeper(sys.executable, tmp_path, "gs://no-such-bucket/run", environment)
    keeper.last()
    assert "launch: gs://no-such-bucket/run: not copied: " in capfd.readouterr().err
    with pytest.raises(
        RunError, match=r"gs://bucket: no answer; is there such a bucket \(gcloud storage ls\), and may this machine"
    ):
        Keeper("false", tmp_path / "new", "gs://bucket", environment).fetch()
