"""The demonstration endpoint as users start it."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from examples.demo_endpoint.command import main

ROOT = Path(__file__).parents[2]
PROGRAM = """
import os, urllib.request
address = os.environ["OPENAI_BASE_URL"]
with urllib.request.urlopen(f"{address}/models") as reply:
    print(address, reply.status)
raise SystemExit(7)
"""


def test_it_serves_while_a_command_runs_and_returns_its_exit_code():
    result = subprocess.run(
        [sys.executable, "-m", "examples.demo_endpoint", sys.executable, "-c", PROGRAM],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    address, status = result.stdout.split()
    assert (result.returncode, status) == (7, "200"), result.stderr
    assert address.startswith("http://127.0.0.1:")


def test_a_missing_program_is_one_line(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["no-such-program"])
    assert ended.value.code == 2
    assert capsys.readouterr().err.endswith("error: no-such-program: no such program\n")


def test_a_stop_reaches_the_command_and_its_end_is_the_exit_code():
    program = "import time; print('ready', flush=True); time.sleep(60)"
    command = [sys.executable, "-m", "examples.demo_endpoint", sys.executable, "-c", program]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.terminate()
        assert process.wait(30) == 128 + signal.SIGTERM
