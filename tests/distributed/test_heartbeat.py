"""Where a process is, for who watches from outside: also after it was killed."""

import os
import signal
import subprocess
import sys

from e5jax.distributed import heartbeat

PROGRAM = """
import os, signal, sys
from e5jax.distributed.heartbeat import BATCH, COMPILE, STEP, Heartbeat
heartbeat = Heartbeat(sys.argv[1])
heartbeat.enter(COMPILE)
heartbeat.enter(BATCH, 41)
heartbeat.enter(STEP, 41)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_the_last_phase_outlives_its_process(tmp_path):
    path = tmp_path / "phase"
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(path)],
        check=False,
        env={**os.environ, "PYTHONPATH": "."},
    )
    assert done.returncode == -signal.SIGKILL
    assert heartbeat.read(path) == ("step", 41)


def test_who_has_said_nothing_is_nowhere(tmp_path):
    assert heartbeat.read(tmp_path / "phase") == ("", 0)
