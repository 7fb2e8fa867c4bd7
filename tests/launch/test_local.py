"""The wrapper itself: `launch/train.sh` starts, stops and resumes the real trainer, in two processes of four devices each."""

import json
import os
import signal
from collections.abc import Iterator

import pytest

from launch.launcher import record
from tests.faults.material import in_another_process
from tests.launch.runs import ASKED, STEPS, Place, comes_to, forget, pid_of, said

TWO = "--num-processes=2"


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("local")
    in_another_process("make", folder / "base")
    yield Place(folder, folder / "base")
    forget("test-local-")


def test_sigterm_through_the_wrapper_saves_and_the_same_command_ends_with_the_same_bits(place):
    told, only = place.folder / "test-local-told", "--config.stages=('train',)"
    child = place.start("test-local-told", TWO, only)
    comes_to(told, 1, 3)
    child.send_signal(signal.SIGTERM)
    said(child, 75)
    ((files, state),) = record.states(told)
    assert (state.end, len(state.attempts), record.lives(files)) == (75, 1, False)
    assert 3 <= max(int(path.parent.name) for path in told.glob("checkpoints/*/MANIFEST")) < STEPS
    said(place.start("test-local-told", TWO, only), 0)
    said(place.start("test-local-whole", TWO, only), 0)
    (line,) = in_another_process("difference", place.base, place.folder / "test-local-whole", told)
    found = json.loads(line)
    assert found["steps"] == [STEPS, STEPS]
    assert (found["apart"], found["batches"], found["hashes"]) == (0, True, True)


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
