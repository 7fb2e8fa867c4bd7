"""The wrapper itself, with several processes of the real trainer; the short version is in tests/faults, whose runs it shares."""

import os
import signal
from collections.abc import Iterator

import pytest

from launch.launcher import record
from tests.faults.material import in_another_process
from tests.launch.runs import ASKED, Place, comes_to, forget, pid_of, said

TWO = "--num-processes=2"


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("local")
    in_another_process("make", folder / "base")
    yield Place(folder, folder / "base")
    forget("test-local-")


@pytest.mark.skipif(ASKED not in os.environ, reason=f"{ASKED} is not set")
def test_the_supervisor_goes_on_when_one_process_was_told_and_the_run_ends_with_the_same_bits(place):
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
