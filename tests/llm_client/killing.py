"""Runs that are killed: children of a process that has imported everything already, so that a hundred of them take a minute."""

import contextlib
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.config.test_load import ROOT

PARENT = """
import os, signal, sys
from tests.llm_client.{module} import child
for line in sys.stdin:
    pid = os.fork()
    if pid == 0:
        child(*line.split())
        os._exit(0)
    print(pid, flush=True)
    sys.stdin.readline()
    os.kill(pid, signal.SIGKILL)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""


@contextlib.contextmanager
def parent(module: str) -> Iterator[Callable[[Path, str, float], bool]]:
    """Gives a function that runs `child(journal, url)` of a test module, kills it so long after the journal has lines of it,
    and says whether it was still running then."""
    program = [sys.executable, "-c", PARENT.format(module=module)]
    with subprocess.Popen(
        program, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        give, get = process.stdin, process.stdout

        def kill(path: Path, url: str, wait: float) -> bool:
            before = lines(path)
            print(path, url, file=give, flush=True)
            get.readline()
            deadline = time.monotonic() + 30
            while lines(path) <= before + 1 and time.monotonic() < deadline:
                time.sleep(0.005)
            time.sleep(wait)
            print(file=give, flush=True)
            return int(get.readline()) == -9

        yield kill
        give.close()


def lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0
