"""A real Open MPI: two ranks train under a supervisor, are told to stop through it, and end with the same bits."""

import os
import re
import shutil
import signal

import pytest

from launch.launcher import record
from tests.launch.runs import ASKED, STEPS, comes_to, pid_of, said

pytestmark = [
    pytest.mark.skipif(ASKED not in os.environ, reason=f"{ASKED} is not set"),
    pytest.mark.skipif(
        shutil.which("mpirun") is None, reason="needs mpirun: apt install openmpi-bin"
    ),
]
MPI = ("--target=mpi", "--num-processes=2", "--allow-dirty", "--mpirun=--oversubscribe")
ROOT = ("--mpirun=--allow-run-as-root",) if os.geteuid() == 0 else ()


def ends(run) -> dict[str, tuple[int | None, list[int]]]:
    found = record.states(run)
    return {
        f"{files.kind}-{files.first}": (state.end, [code for code, _ in state.attempts])
        for files, state in found
    }


def test_ranks_stop_together_start_again_and_end_with_the_same_bits(place):
    run, root = place.folder / "test-mpi-run", f"--root={place.folder / 'e5jax'}"
    child = place.start("test-mpi-run", *MPI, *ROOT, root)
    comes_to(run, 1, 3)
    child.send_signal(signal.SIGTERM)
    text = said(child, 75)
    assert ends(run) == {"batch-0": (75, [75]), "host-0": (75, [75]), "host-1": (75, [75])}, text
    # A rank that dies takes the others along, and all start again.
    child = place.start("test-mpi-run", *MPI, *ROOT, root)
    comes_to(run, 0, 6)
    os.kill(pid_of(run, 1), signal.SIGKILL)
    text = said(child, 0)
    assert re.search(r"launch: exit code \d+ at step \d+: restart 1 in 1 s", text), text
    said(place.start("test-mpi-whole", "--num-processes=2"), 0)
    whole, broken = place.digests("test-mpi-whole", "test-mpi-run")
    assert whole["step"] == STEPS
    assert broken == whole
