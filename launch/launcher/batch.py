"""Supervises the one command, `srun` or `mpirun`, that starts all processes of a run."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from e5jax.distributed import heartbeat
from e5jax.errors import STOPPED
from launch.launcher.record import FOLDER, Files, locked, new_state, write_state
from launch.launcher.supervisor import CRASHES, Attempt, Policy, say, spawn, supervise

STOP_SIGNAL = signal.SIGUSR1  # srun and mpirun forward it; on SIGTERM they kill within seconds
REQUEUE_TIMEOUT = 120.0  # seconds in which Slurm ends a job that it has requeued


def run(
    name: str,
    workdir: Path,
    argv: Callable[[], Sequence[str]],
    environment: Mapping[str, str],
    policy: Policy,
) -> int:
    """Runs the command to its end, with restarts, and returns its exit code."""
    files = Files(workdir, 0, "batch")
    with locked(files):
        state = new_state(files, name, 0)
        write_state(files, state)

        def record_attempts(attempts: Sequence[Attempt]) -> None:
            nonlocal state
            state = state._replace(attempts=tuple(tuple(attempt) for attempt in attempts))
            write_state(files, state)

        code, _ = supervise(
            lambda adopt: adopt(spawn(argv(), environment, None)),
            lambda: last_step(workdir),
            policy,
            record_attempts,
        )
        write_state(files, state._replace(end=code))
        return code


def last_step(workdir: Path) -> int:
    """The last step that any process has started."""
    return max(
        (heartbeat.read(path)[1] for path in (workdir / FOLDER).glob("process-*.phase")), default=0
    )


def job(name: str, workdir: Path, argv: Sequence[str], restarts: int) -> int:
    """Runs a Slurm job and requeues it once it has saved, at its time limit or by preemption.

    Preemption signals the tasks, a time limit this process. `stop` disables requeueing first.
    """
    policy = Policy(restarts, number=STOP_SIGNAL, retried=CRASHES)
    code = run(name, workdir, lambda: argv, os.environ, policy)
    number = os.environ.get("SLURM_JOB_ID")
    if code != STOPPED or not number:
        return code
    # A job that a user has cancelled is not requeued.
    if " JobState=RUNNING " not in _scontrol("show", "job", number, "--oneliner").stdout:
        say("saved; the job was cancelled")
        return code
    reply = _scontrol("requeue", number)
    if reply.returncode:
        say(f"saved; not requeued ({reply.stderr.strip() or 'scontrol refused'})")
        return code
    say(f"saved; job {number} is requeued")
    time.sleep(REQUEUE_TIMEOUT)  # Slurm ends this process
    return code


def _scontrol(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["scontrol", *arguments],
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        check=False,
    )
