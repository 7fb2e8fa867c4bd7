"""One command that starts all processes of a run, `srun` or `mpirun`, kept going: what Slurm's job or an MPI launch is."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from e5jax.distributed import heartbeat
from e5jax.errors import STOPPED
from launch.launcher.record import FOLDER, Files, fresh, keep, locked
from launch.launcher.supervisor import CRASHES, Attempt, Policy, say, spawn, supervise

NUMBER = signal.SIGUSR1  # srun and mpirun hand it on; told to end, they kill within seconds
REQUEUING = 120.0  # seconds in which Slurm ends a job that it has put back into the queue


def run(
    name: str,
    workdir: Path,
    argv: Callable[[], Sequence[str]],
    environment: Mapping[str, str],
    policy: Policy,
) -> int:
    """Runs the command to its end, again and again if need be. Returns the exit code."""
    return supervised(name, workdir, argv, environment, policy)[0]


def supervised(
    name: str,
    workdir: Path,
    argv: Callable[[], Sequence[str]],
    environment: Mapping[str, str],
    policy: Policy,
) -> tuple[int, int | None]:
    """The same; returns the signal, too, if it was told to stop."""
    files = Files(workdir, 0, "batch")
    with locked(files):
        state = fresh(files, name, 0)
        keep(files, state)

        def note(attempts: Sequence[Attempt]) -> None:
            nonlocal state
            state = state._replace(attempts=tuple(tuple(attempt) for attempt in attempts))
            keep(files, state)

        code, told = supervise(
            lambda adopt: adopt(spawn(argv(), environment, None)),
            lambda: furthest(workdir),
            policy,
            note,
        )
        keep(files, state._replace(end=code))
        return code, told


def furthest(workdir: Path) -> int:
    """The last step that a process has begun."""
    return max(
        (heartbeat.read(path)[1] for path in (workdir / FOLDER).glob("process-*.phase")), default=0
    )


def job(name: str, workdir: Path, argv: Sequence[str], restarts: int) -> int:
    """A job of Slurm. When it has saved, by its time limit or by preemption, it is queued again.

    Preemption tells the tasks and not this process, a time limit this process. `stop` forbids the queue before it tells.
    """
    code, _ = supervised(
        name, workdir, lambda: argv, os.environ, Policy(restarts, number=NUMBER, again=CRASHES)
    )
    number = os.environ.get("SLURM_JOB_ID")
    if code != STOPPED or not number:
        return code
    # Who cancels a job does not want it again.
    if " JobState=RUNNING " not in _scontrol("show", "job", number, "--oneliner").stdout:
        say("saved; the job was cancelled")
        return code
    done = _scontrol("requeue", number)
    if done.returncode:
        say(f"saved; not queued again ({done.stderr.strip() or 'scontrol says no'})")
        return code
    say(f"saved; job {number} is queued again")
    time.sleep(REQUEUING)  # Slurm ends this
    return code


def _scontrol(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["scontrol", *words], capture_output=True, encoding="utf-8", errors="replace", check=False
    )
