"""The demonstration endpoint as users start it."""

import subprocess
import sys
from pathlib import Path

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
