"""A real Slurm: a run is submitted, preempted by a job that matters more, queued again, resumed, and ends with the same bits."""

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.material import ROOT
from tests.launch.runs import ASKED, LONG, Place, comes_to, said, until
from tests.launch.slurm import Slurm, missing

pytestmark = [
    pytest.mark.skipif(ASKED not in os.environ, reason=f"{ASKED} is not set"),
    pytest.mark.skipif(bool(missing()), reason=missing() or "-"),
]
STEPS = 40


@pytest.fixture(scope="module")
def slurm(tmp_path_factory) -> Iterator[Slurm]:
    with Slurm(tmp_path_factory.mktemp("daemons")) as made:
        yield made


def wrapper(place: Place, slurm: Slurm, *words: str) -> subprocess.CompletedProcess[str]:
    around = slurm.environment(place.environment) | {"HOME": str(place.folder)}
    return subprocess.run(
        words, cwd=ROOT, env=around, capture_output=True, text=True, check=False, timeout=LONG
    )


def submit(place: Place, slurm: Slurm, run: str, *options: str) -> str:
    """The number of the job."""
    command = place.command(
        run,
        "--target=slurm",
        "--num-processes=2",
        "--partition=low",
        "--allow-dirty",
        *options,
        steps=STEPS,
    )
    done = wrapper(place, slurm, *command)
    assert done.returncode == 0, done.stderr
    found = re.search(r"job (\d+), output (.*)", done.stdout)
    assert found is not None, done.stdout
    return found[1]


def output(folder: Path) -> str:
    return "".join(path.read_text() for path in folder.glob("slurm-*.log"))


def state(slurm: Slurm, job: str) -> str:
    return slurm.ask("scontrol", "show", "job", job)


def test_a_preempted_run_is_queued_again_and_ends_with_the_same_bits(place, slurm):
    run = place.folder / "test-slurm-run"
    job = submit(place, slurm, "test-slurm-run", "--config.checkpoint.every=10")
    comes_to(run, 1, 5)
    slurm.ask(
        "sbatch",
        "--partition=high",
        "--nodes=2",
        "--exclusive",
        "--output=/dev/null",
        "--wrap=sleep 3",
    )
    until(lambda: "Restarts=1" in state(slurm, job), lambda: state(slurm, job) + output(run))
    again = wrapper(
        place, slurm, *place.command("test-slurm-run", "--target=slurm", "--allow-dirty")
    )
    assert again.returncode == 3
    assert f"job {job} has that name already" in again.stderr
    until(
        lambda: "JobState=COMPLETED" in state(slurm, job), lambda: state(slurm, job) + output(run)
    )
    assert "Restarts=1" in state(slurm, job)
    assert f"saved; job {job} is queued again" in output(run)
    assert re.search(r"resumes at step ([1-9]\d*)", output(run)), output(run)
    said(
        place.start(
            "test-slurm-whole", "--num-processes=2", "--config.checkpoint.every=10", steps=STEPS
        ),
        0,
    )
    whole, preempted = place.digests("test-slurm-whole", "test-slurm-run")
    assert whole["step"] == STEPS
    assert preempted == whole


def test_a_job_whose_time_is_nearly_up_is_queued_again_and_one_that_is_stopped_is_not(place, slurm):
    run = place.folder / "test-slurm-stopped"
    job = submit(place, slurm, "test-slurm-stopped", "--config.optim.steps=4000")
    comes_to(run, 0, 5)
    slurm.ask("scancel", "--batch", "--signal=USR1", job)  # as --signal=B:USR1@300 does
    until(lambda: "Restarts=1" in state(slurm, job), lambda: state(slurm, job) + output(run))
    until(lambda: "resumes at step" in output(run), lambda: state(slurm, job) + output(run))
    saved = int(re.findall(r"resumes at step (\d+)", output(run))[-1])
    comes_to(run, 0, saved + 5)
    shown = wrapper(place, slurm, str(ROOT / "launch/train.sh"), "status", "test-slurm-stopped")
    assert re.search(r"process 1: .* phase \w+, step \d+", shown.stdout), shown
    stopped = wrapper(place, slurm, str(ROOT / "launch/train.sh"), "stop", "test-slurm-stopped")
    assert stopped.returncode == 0, stopped.stderr
    until(lambda: "ExitCode=75:0" in state(slurm, job), lambda: state(slurm, job) + output(run))
    assert "Restarts=1" in state(slurm, job)
    assert "saved; not queued again" in output(run)
