"""Starts, restarts and stops the processes of a run on one machine."""

import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NoReturn

from e5jax.distributed import heartbeat
from e5jax.distributed.process import COORDINATOR, PROCESS, PROCESSES
from e5jax.errors import DONE, REPORTED, STOPPED, ConfigError, report
from e5jax.versions import versions
from launch.launcher import record
from launch.launcher.bucket_sync import BucketSync
from launch.launcher.job import Job
from launch.launcher.keys import read_keys
from launch.launcher.profiles import environment, merge
from launch.launcher.ranks import process_variables, variables_of
from launch.launcher.record import Files, locked, new_state, write_state
from launch.launcher.status import Tail
from launch.launcher.supervisor import ABORTED, TERMINATED, Attempt, Policy, spawn, supervise

VERSIONS_PREFIX = "e5jax-versions "  # of the line that `versions` prints
START_TIMEOUT = 60.0  # seconds that a run in the background may take to start
BEFORE_HANDLERS = (TERMINATED, 128 + signal.SIGUSR1)  # exit codes before signals are handled


def resolve(job: Job) -> tuple[Job, Files]:
    """The job with what only this machine knows: its process index and the run's directory."""
    if job.rank:
        environment = dict(os.environ)
        if job.coordinator:
            environment |= process_variables(0, 2, job.coordinator)
        variables = variables_of(job.rank, environment)
        job = job._replace(
            rank="",
            first=int(variables.get(PROCESS) or 0),
            here=1,
            processes=int(variables.get(PROCESSES) or 1),
            coordinator=variables.get(COORDINATOR) or "",
        )
    workdir = Path(job.workdir).expanduser().absolute()
    words = tuple(_absolute(word, job.workdir, workdir) for word in job.words)
    return job._replace(workdir=str(workdir), words=words), Files(workdir, job.first)


def _absolute(word: str, relative: str, workdir: Path) -> str:
    name, equals, value = word.partition("=")
    return (
        f"{name}={workdir}"
        if equals and value == relative and name in ("--workdir", "--output")
        else word
    )


def process_environment(job: Job) -> dict[str, str]:
    """Environment of the processes of a resolved job, without their process index."""
    keys = read_keys(Path(job.key_file).expanduser()) if job.key_file else {}
    inherited = merge(environment(job.platform, job.profile, job.devices), os.environ)
    return merge(inherited, _pairs(job)) | keys


def launcher_environment(job: Job) -> dict[str, str]:
    """Variables that the launcher sets, and the user with --env."""
    return merge(environment(job.platform, job.profile, job.devices), _pairs(job))


def _pairs(job: Job) -> dict[str, str]:
    return dict(pair.split("=", 1) for pair in job.env)


def command(job: Job) -> list[str]:
    """The command of one process."""
    return [job.python, "-m", "e5jax", *job.words]


def replace_process(job: Job) -> NoReturn:
    """Replaces this process by the run's only one, which then receives all signals."""
    job, files = resolve(job)
    with locked(files, inherited=True):
        write_environment(job, files)
        write_state(files, new_state(files, job.run, job.here))
        own = process_environment(job) | {heartbeat.FILE: str(files.phase(job.first))}
        os.execve(job.python, command(job), own)


def run(job: Job, *, echo: bool = False, logs: bool = True) -> tuple[int, int | None]:
    """Runs a machine's processes to their end.

    Args:
        job: the machine's part of the run.
        echo: copy the log of the first process to standard output.
        logs: write the output of each process to a log file.

    Returns:
        (the exit code, the signal that stopped the run or None).

    """
    job, files = resolve(job)
    state = new_state(files, job.run, job.here)
    bucket = job.bucket if job.first == 0 else ""
    sync = BucketSync(job.python, files.workdir, bucket, process_environment(job))
    with locked(files):
        write_environment(job, files)
        write_state(files, state)
        sync.fetch()
        tail = Tail(files.log(job.first)) if echo and logs else None

        def record_attempts(attempts: Sequence[Attempt]) -> None:
            nonlocal state
            state = state._replace(attempts=tuple(tuple(attempt) for attempt in attempts))
            write_state(files, state)

        def tick() -> None:
            sync.tick()
            if tail:
                tail.more()

        code, stop_signal = supervise(
            partial(_start, job, files, logs),
            lambda: max(heartbeat.read(files.phase(process))[1] for process in _processes(job)),
            Policy(job.restarts),
            record_attempts,
            tick,
        )
        if stop_signal is not None and code in BEFORE_HANDLERS:
            code = STOPPED  # stopped before it could save; nothing was lost
        write_state(files, state._replace(end=code))
        sync.finish()
        return code, stop_signal


def _processes(job: Job) -> range:
    return range(job.first, job.first + job.here)


def _start(
    job: Job, files: Files, logs: bool, adopt: Callable[[subprocess.Popen[bytes]], None]
) -> None:
    shared = process_environment(job)
    # On a single machine any free port will do; the previous attempt's may still be in use.
    coordinator = job.coordinator or f"127.0.0.1:{free_port()}"
    for process in _processes(job):
        files.phase(process).unlink(missing_ok=True)
        own = (
            shared
            | process_variables(process, job.processes, coordinator)
            | {heartbeat.FILE: str(files.phase(process))}
        )
        if job.devices and job.platform == "cuda" and job.here > 1:
            first = job.devices * (process - job.first)
            own["JAX_LOCAL_DEVICE_IDS"] = ",".join(map(str, range(first, first + job.devices)))
        adopt(spawn(command(job), own, files.log(process) if logs else None))


def free_port() -> int:
    """A port of this machine that is not in use."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def write_environment(job: Job, files: Files) -> None:
    """Records the command and environment of a run; of keys only the names."""
    inherited = {
        name: value
        for name, value in os.environ.items()
        if name.startswith(("JAX_", "XLA_", "LIBTPU_", "NCCL_", "TPU_"))
    }
    record.write(
        files.environment,
        {
            "run": job.run,
            "command": ["e5jax", *job.words],
            "platform": job.platform or "detected",
            "profile": job.profile or "none",
            "environment": merge(
                merge(environment(job.platform, job.profile, job.devices), inherited), _pairs(job)
            ),
            "keys": sorted(read_keys(Path(job.key_file).expanduser())) if job.key_file else [],
        },
    )


def detach(job: Job) -> int:
    """Runs a job in the background, in a session of its own, and prints its pid; returns 0.

    If the job is already running, only says so.
    """
    job, files = resolve(job)
    return background(job.run, files, files.log(job.first), lambda: run(job)[0])


def background(name: str, files: Files, log: Path, call: Callable[[], int]) -> int:
    """Runs `call` in a child process that holds the lock of `files` and writes its state there."""
    if record.is_running(files):
        print(f"{name} on {socket.gethostname()}: already running, log {log}", flush=True)
        return DONE
    files.folder.mkdir(parents=True, exist_ok=True)
    files.state.unlink(missing_ok=True)
    pid = os.fork()
    if pid == 0:
        _run_detached(log, call)
    deadline = time.monotonic() + START_TIMEOUT
    while (
        not files.state.exists()
        and os.waitpid(pid, os.WNOHANG)[0] == 0
        and time.monotonic() < deadline
    ):
        time.sleep(0.02)
    if not files.state.exists():
        text = log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""
        lines = text.strip().splitlines()
        raise ConfigError(
            f"{name} did not start on {socket.gethostname()}: {lines[-1] if lines else 'no output'}"
        )
    print(f"{name} on {socket.gethostname()}: pid {pid}, log {log}", flush=True)
    return DONE


def _run_detached(path: Path, call: Callable[[], int]) -> NoReturn:
    os.setsid()
    log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    empty = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((empty, 0), (log, 1), (log, 2)):
        os.dup2(source, target)
    code = ABORTED
    try:
        code = call()
    except REPORTED as error:
        code = report(error)
    finally:
        os._exit(code)


def print_versions() -> int:
    """Prints the versions that a run on this machine would use, for comparison."""
    print(VERSIONS_PREFIX + json.dumps({"host": socket.gethostname(), **versions()}), flush=True)
    return DONE
