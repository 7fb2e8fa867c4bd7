"""What happens on a machine of a run: its processes are started, kept going, and told to stop."""

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
from e5jax.errors import DONE, REPORTED, STOPPED, ConfigError, report
from e5jax.versions import versions
from launch.launcher import record
from launch.launcher.job import Job
from launch.launcher.keeper import Keeper
from launch.launcher.keys import read_keys
from launch.launcher.look import Tail
from launch.launcher.profiles import environment, merge
from launch.launcher.ranks import given, place_of
from launch.launcher.record import Files, fresh, keep, locked
from launch.launcher.supervisor import ABORTED, TERMINATED, Attempt, Policy, spawn, supervise

MARK = "e5jax-versions "  # begins a line that `versions` prints
BEGINNING = 60.0  # seconds that a run in the background may take to begin
UNHEARD = (TERMINATED, 128 + signal.SIGUSR1)  # exit codes of a process that does not listen yet


def settled(job: Job) -> tuple[Job, Files]:
    """The job with what only this machine knows: which process it is of which run, and where its directory is."""
    if job.rank:
        said = place_of(
            job.rank,
            {**os.environ, **given(0, 2, job.coordinator)} if job.coordinator else os.environ,
        )
        number, of, at = (
            said.get(name)
            for name in ("JAX_PROCESS_ID", "JAX_NUM_PROCESSES", "JAX_COORDINATOR_ADDRESS")
        )
        job = job._replace(
            rank="", first=int(number or 0), here=1, processes=int(of or 1), coordinator=at or ""
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


def surroundings(job: Job) -> dict[str, str]:
    """The environment of its processes, but for their places. Whoever calls this has settled the job."""
    keys = read_keys(Path(job.key_file).expanduser()) if job.key_file else {}
    return (
        merge(merge(environment(job.platform, job.profile, job.devices), os.environ), _pairs(job))
        | keys
    )


def asked(job: Job) -> dict[str, str]:
    """What the launcher sets, and the user with --env."""
    return merge(environment(job.platform, job.profile, job.devices), _pairs(job))


def _pairs(job: Job) -> dict[str, str]:
    return dict(pair.split("=", 1) for pair in job.env)


def command(job: Job) -> list[str]:
    """Of one process."""
    return [job.python, "-m", "e5jax", *job.words]


def become(job: Job) -> NoReturn:
    """Replaces this process by the run's only one, to which all signals then go."""
    job, files = settled(job)
    with locked(files, inherited=True):
        note_environment(job, files)
        keep(files, fresh(files, job.run, job.here))
        os.execve(
            job.python,
            command(job),
            surroundings(job) | {heartbeat.FILE: str(files.phase(job.first))},
        )


def run(job: Job, *, echo: bool = False, logs: bool = True) -> tuple[int, int | None]:
    """Runs a machine's processes to their end; returns the exit code, and the signal if it was told to stop.

    With `logs` what they say goes to a file each; `echo` shows the first one's as well.
    """
    job, files = settled(job)
    state = fresh(files, job.run, job.here)
    keeper = Keeper(
        job.python, files.workdir, job.bucket if job.first == 0 else "", surroundings(job)
    )
    with locked(files):
        note_environment(job, files)
        keep(files, state)
        keeper.fetch()
        follow = Tail(files.log(job.first)) if echo and logs else None

        def note(attempts: Sequence[Attempt]) -> None:
            nonlocal state
            state = state._replace(attempts=tuple(tuple(attempt) for attempt in attempts))
            keep(files, state)

        def tick() -> None:
            keeper.tick()
            if follow:
                follow.more()

        begin = partial(_start, job, files, logs)
        code, told = supervise(
            begin, lambda: _furthest(job, files), Policy(job.restarts), note, tick
        )
        if told is not None and code in UNHEARD:
            code = STOPPED  # before it could listen; nothing was lost
        keep(files, state._replace(end=code))
        keeper.last()
        return code, told


def _furthest(job: Job, files: Files) -> int:
    return max(heartbeat.read(files.phase(process))[1] for process in _here(job))


def _here(job: Job) -> range:
    return range(job.first, job.first + job.here)


def _start(
    job: Job, files: Files, logs: bool, adopt: Callable[[subprocess.Popen[bytes]], None]
) -> None:
    around = surroundings(job)
    # Alone on this machine, any free port will do, and the one of the attempt before may still be taken.
    coordinator = job.coordinator or f"127.0.0.1:{free_port()}"
    for process in _here(job):
        files.phase(process).unlink(missing_ok=True)
        own = (
            around
            | given(process, job.processes, coordinator)
            | {heartbeat.FILE: str(files.phase(process))}
        )
        if job.devices and job.platform == "cuda" and job.here > 1:
            first = job.devices * (process - job.first)
            own["JAX_LOCAL_DEVICE_IDS"] = ",".join(map(str, range(first, first + job.devices)))
        adopt(spawn(command(job), own, files.log(process) if logs else None))


def free_port() -> int:
    """A port of this machine that nobody has."""
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        return opened.getsockname()[1]


def note_environment(job: Job, files: Files) -> None:
    """Keeps beside the run what it was started with; keys are named and not shown."""
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
            "platform": job.platform or "what is there",
            "profile": job.profile or "none",
            "environment": merge(
                merge(environment(job.platform, job.profile, job.devices), inherited), _pairs(job)
            ),
            "keys": sorted(read_keys(Path(job.key_file).expanduser())) if job.key_file else [],
        },
    )


def detach(job: Job) -> int:
    """Runs it in the background, out of reach of whatever ends this session. Prints its pid once it has begun, returns 0.

    Where it is under way already that is all that is said.
    """
    job, files = settled(job)
    return background(job.run, files, files.log(job.first), lambda: run(job)[0])


def background(name: str, files: Files, log: Path, go: Callable[[], int]) -> int:
    """Does something in a process of its own that holds the lock of `files` and keeps its state there."""
    if record.lives(files):
        print(f"{name} on {socket.gethostname()}: under way already, log {log}", flush=True)
        return DONE
    files.folder.mkdir(parents=True, exist_ok=True)
    files.state.unlink(missing_ok=True)
    pid = os.fork()
    if pid == 0:
        _live(log, go)
    deadline = time.monotonic() + BEGINNING
    while (
        not files.state.exists()
        and os.waitpid(pid, os.WNOHANG)[0] == 0
        and time.monotonic() < deadline
    ):
        time.sleep(0.02)
    if not files.state.exists():
        said = (
            log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
            if log.exists()
            else []
        )
        raise ConfigError(
            f"{name} did not begin on {socket.gethostname()}: {said[-1] if said else 'it said nothing'}"
        )
    print(f"{name} on {socket.gethostname()}: pid {pid}, log {log}", flush=True)
    return DONE


def _live(path: Path, go: Callable[[], int]) -> NoReturn:
    os.setsid()
    log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    empty = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((empty, 0), (log, 1), (log, 2)):
        os.dup2(source, target)
    code = ABORTED
    try:
        code = go()
    except REPORTED as error:
        code = report(error)
    finally:
        os._exit(code)


def tell_versions() -> int:
    """Prints what a run here would use, for comparing; imports of packages only, nothing is started."""
    print(MARK + json.dumps({"host": socket.gethostname(), **versions()}), flush=True)
    return DONE
