"""The command against the demo endpoint, each in its own process as users run them."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from e5jax.__main__ import main
from e5jax.records import parse_example
from e5jax.synth.languages import table

ROOT = Path(__file__).parents[2]
DEMO = ROOT / "configs/synth_demo.py"


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with subprocess.Popen(
        [sys.executable, "-m", "e5jax.synth.demo", "--latency=0.01"], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout is not None
        yield server.stdout.readline().strip()
        server.terminate()


def words(address: str, output: Path, *overrides: str) -> list[str]:
    return [
        "synth",
        f"--config={DEMO}",
        f"--output={output}",
        f"--config.endpoint.base_url={address}",
        *(f"--config.{override}" for override in overrides),
    ]


def requests_of(output: Path) -> int:
    return json.loads((output / "stats.json").read_text("utf-8"))["requests"]["requests"]


def test_a_run_writes_examples_and_repeats_itself_without_asking(address, tmp_path, capsys):
    output = tmp_path / "run"
    assert main(words(address, output, "examples=60")) == 0
    assert re.search(r"synth: \d+ of 60 examples in", capsys.readouterr().out)
    made = [
        parse_example(line, path.name) for path in (output / "examples").iterdir() for line in path.read_text("utf-8").splitlines()
    ]
    assert len(made) > 50
    assert {example.language for example in made} <= set(table())
    counted = ("journal.jsonl", "stats.json", "report.html")  # of all runs together
    files = {path: path.read_bytes() for path in output.rglob("*") if path.is_file() and path.name not in counted}
    asked = requests_of(output)
    assert main(words(address, output, "examples=60")) == 0
    assert requests_of(output) == asked
    assert files == {path: path.read_bytes() for path in files}


def test_another_configuration_is_refused_but_checks_and_endpoint_may_change(address, tmp_path, capsys):
    output = tmp_path / "run"
    assert main(words(address, output, "examples=12")) == 0
    assert main(words(address, output, "examples=13")) == 3
    assert "config.examples: 12 -> 13" in capsys.readouterr().err
    asked = requests_of(output)
    assert main(words(address, output, "examples=12", "checks.attempts=1", "endpoint.concurrency=2", "budget.requests=1000")) == 0
    assert requests_of(output) == asked


def test_a_spent_budget_ends_the_run_with_what_there_is(address, tmp_path, capsys):
    output = tmp_path / "run"
    assert main(words(address, output, "examples=40", "budget.requests=20")) == 1
    assert "still to be asked for" in capsys.readouterr().out
    found = json.loads((output / "stats.json").read_text("utf-8"))
    assert not found["complete"]
    assert found["examples"]["open"] > 0
    assert main(words(address, output, "examples=40")) == 0


def test_an_interrupted_run_exits_75_and_goes_on(address, tmp_path):
    output = tmp_path / "run"
    command = [sys.executable, "-m", "e5jax", *words(address, output, "examples=2000", "endpoint.concurrency=4")]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        while not (output / "journal.jsonl").exists() or (output / "journal.jsonl").stat().st_size < 20_000:
            assert process.poll() is None
            time.sleep(0.05)
        os.kill(process.pid, signal.SIGINT)
        _, said = process.communicate(timeout=120)
    assert process.returncode == 75
    assert "Traceback" not in said
    assert json.loads((output / "stats.json").read_text("utf-8"))["halted"] == "interrupted; the same command goes on"


def test_a_dry_run_asks_nothing_and_writes_nothing(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["synth", f"--config={DEMO}", "--dry-run", "--config.endpoint.base_url=http://127.0.0.1:9/v1"]) == 0
    printed = capsys.readouterr().out
    assert re.search(r"^all +5,\d{3} ", printed, re.MULTILINE)
    assert re.search(r"^cost: \d", printed, re.MULTILINE)
    for name in ("short-long", "long-short", "short-short", "long-long", "sts", "bitext"):
        assert f"--- {name} ---" in printed
    assert not list(tmp_path.iterdir())


def test_a_wrong_configuration_exits_3_and_writes_nothing(tmp_path, capsys):
    assert main(["synth", f"--config={DEMO}", f"--output={tmp_path / 'run'}", "--config.examples=0"]) == 3
    assert "config.examples=0" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
