"""The demo endpoint in a process of its own, one for all tests that ask it."""

import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.config.test_load import ROOT


@pytest.fixture(scope="session")
def address() -> Iterator[str]:
    command = [sys.executable, "-m", "examples.demo_endpoint", "--latency=0.01"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        yield server.stdout.readline().strip()
        server.terminate()
