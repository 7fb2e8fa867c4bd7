"""What happens on a machine of a run: its processes are started, kept going, and told to stop."""

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple, NoReturn

from e5jax import phase
from e5jax.errors import DONE, ERROR, STOPPED, ConfigError, RunError, report
from e5jax.release import versions
from launch.launcher import record
from launch.launcher.keeper import Keeper
from launch.launcher.keys import read_keys
from launch.launcher.profiles import environment, merge
from launch.launcher.ranks import given, place_of
from launch.launcher.record import Files, fresh, keep, locked
from launch.launcher.supervisor import ABORTED, TERMINATED, Attempt, Policy, say, spawn, supervise

MARK = "e5jax-versions "  # begins a line that `versions` prints
BEGINNING = 60.0  # seconds that a run in the background may take to begin
UNHEARD = (TERMINATED, 128 + signal.SIGUSR1)  # exit codes of a process that does not listen yet
STOPPING = 1_260.0  # seconds that `stop` waits: a little more than the supervisor's grace


class Job(NamedTuple):
    """A machine's part of a run: processes `first` … `first + here - 1` of `processes`, or the one that `rank` says."""

    run: str
    workdir: str
    words: tuple[str, ...]  # of e5jax
    python: str = sys.executable
    platform: str = ""
    profile: str = ""
    devices: int = 0
    processes: int = 1
    first: int = 0
    here: int = 1
    coordinator: str = ""
    rank: str = ""
    restarts: int = 0
    key_file: str = ""
    bucket: str = ""  # gs://…, where what is in `workdir` is kept
    env: tuple[str, ...] = ()  # NAME=VALUE

    def arguments(self) -> list[str]:
        """Of `python -m launch.launcher host start`; what is as usual is left out."""
        changed = {name: value for name, value in self._asdict().items() if value != self._field_defaults.get(name)}
        changed.pop("words")
        env = [f"--env={pair}" for pair in changed.pop("env", ())]
        return [*(f"--{name.replace('_', '-')}={value}" for name, value in changed.items()), *env, "--", *self.words]


def parse_job(arguments: Sequence[str]) -> Job:
    """The inverse of `Job.arguments`."""
    split = arguments.index("--")
    parser = argparse.ArgumentParser(prog="launch host", allow_abbrev=False)
    for name, kind in Job.__annotations__.items():
        if name not in ("words", "env"):
            parser.add_argument(
                f"--{name.replace('_', '-')}", type=int if kind is int else str, default=Job._field_defaults.get(name)
            )
    parser.add_argument("--env", action="append", default=[])
    values = vars(parser.parse_args(arguments[:split]))
    return Job(**{**values, "env": tuple(values["env"]), "words": tuple(arguments[split + 1 :])})


def settled(job: Job) -> tuple[Job, Files]:
    """The job with what only this machine knows: which process it is of which run, and where its directory is."""
    if job.rank:
        said = place_of(job.rank, {**os.environ, **given(0, 2, job.coordinator)} if job.coordinator else os.environ)
        number, of, at = (said.get(name) for name in ("JAX_PROCESS_ID", "JAX_NUM_PROCESSES", "JAX_COORDINATOR_ADDRESS"))
        job = job._replace(rank="", first=int(number or 0), here=1, processes=int(of or 1), coordinator=at or "")
    workdir = Path(job.workdir).expanduser().absolute()
    words = tuple(_absolute(word, job.workdir, workdir) for word in job.words)
    return job._replace(workdir=str(workdir), words=words), Files(workdir, job.first)


def _absolute(word: str, relative: str, workdir: Path) -> str:
    name, equals, value = word.partition("=")
    return f"{name}={workdir}" if equals and value == relative and name in ("--workdir", "--output") else word


def surroundings(job: Job) -> dict[str, str]:
    """The environment of its processes, but for their places. Whoever calls this has settled the job."""
    keys = read_keys(Path(job.key_file).expanduser()) if job.key_file else {}
    return merge(merge(environment(job.platform, job.profile, job.devices), os.environ), _pairs(job)) | keys


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
        os.execve(job.python, command(job), surroundings(job) | {phase.FILE: str(files.phase(job.first))})


def run(job: Job, *, echo: bool = False, logs: bool = True) -> tuple[int, int | None]:
    """Runs a machine's processes to their end; returns the exit code, and the signal if it was told to stop.

    With `logs` what they say goes to a file each; `echo` shows the first one's as well.
    """
    job, files = settled(job)
    state = fresh(files, job.run, job.here)
    keeper = Keeper(job.python, files.workdir, job.bucket if job.first == 0 else "", surroundings(job))
    with locked(files):
        note_environment(job, files)
        keep(files, state)
        keeper.fetch()
        follow = Tail(files.log(job.first), sys.stdout.fileno()) if echo and logs else None

        def note(attempts: Sequence[Attempt]) -> None:
            nonlocal state
            state = state._replace(attempts=tuple(tuple(attempt) for attempt in attempts))
            keep(files, state)

        def tick() -> None:
            keeper.tick()
            if follow:
                follow.more()

        begin = partial(_start, job, files, logs)
        code, told = supervise(begin, lambda: _furthest(job, files), Policy(job.restarts), note, tick)
        if told is not None and code in UNHEARD:
            code = STOPPED  # before it could listen; nothing was lost
        keep(files, state._replace(end=code))
        keeper.last()
        return code, told


def _furthest(job: Job, files: Files) -> int:
    return max(phase.told(files.phase(process))[1] for process in _here(job))


def _here(job: Job) -> range:
    return range(job.first, job.first + job.here)


def _start(job: Job, files: Files, logs: bool, adopt: Callable[[subprocess.Popen[bytes]], None]) -> None:
    around = surroundings(job)
    # Alone on this machine, any free port will do, and the one of the attempt before may still be taken.
    coordinator = job.coordinator or f"127.0.0.1:{free_port()}"
    for process in _here(job):
        files.phase(process).unlink(missing_ok=True)
        own = around | given(process, job.processes, coordinator) | {phase.FILE: str(files.phase(process))}
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
    inherited = {name: value for name, value in os.environ.items() if name.startswith(("JAX_", "XLA_", "LIBTPU_", "NCCL_", "TPU_"))}
    record.write(
        files.environment,
        {
            "run": job.run,
            "command": ["e5jax", *job.words],
            "platform": job.platform or "what is there",
            "profile": job.profile or "none",
            "environment": merge(merge(environment(job.platform, job.profile, job.devices), inherited), _pairs(job)),
            "keys": sorted(read_keys(Path(job.key_file).expanduser())) if job.key_file else [],
        },
    )


class Tail:
    """Copies what is added to a file."""

    def __init__(self, path: Path, to: int):
        self._path, self._to = path, to
        self._at = path.stat().st_size if path.exists() else 0

    def more(self) -> None:
        """Copies what has been added since."""
        if self._path.exists() and self._path.stat().st_size > self._at:
            with self._path.open("rb") as file:
                file.seek(self._at)
                self._at += os.write(self._to, file.read(2**20))


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
    while not files.state.exists() and os.waitpid(pid, os.WNOHANG)[0] == 0 and time.monotonic() < deadline:
        time.sleep(0.02)
    if not files.state.exists():
        said = log.read_text(encoding="utf-8", errors="replace").strip().splitlines() if log.exists() else []
        raise ConfigError(f"{name} did not begin on {socket.gethostname()}: {said[-1] if said else 'it said nothing'}")
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
    except (ConfigError, RunError) as error:
        code = report(error)
    finally:
        os._exit(code)


# --- status, logs, stop ----------------------------------------------------------------------------------------


def status(workdir: Path) -> int:
    """Says how a run does. Returns 0 if it is under way or done, else how it ended, as far as this machine knows."""
    found = record.states(workdir)
    if not found:
        raise ConfigError(f"--workdir={workdir}: nothing was launched there from this machine")
    print("\n".join(record.lines(found, phase.told, time.time())), flush=True)
    ends = [state.end if state.end is not None else (DONE if record.lives(files) else ERROR) for files, state in _own(found)]
    return max(ends, default=DONE)


def _own(found: list[tuple[Files, record.State]]) -> list[tuple[Files, record.State]]:
    """Only what runs on this machine: the others' pids and locks mean nothing here."""
    return [(files, state) for files, state in found if state.host == socket.gethostname()]


def logs(workdir: Path, *, follow: bool = False, everyone: bool = False, last: int = 50) -> int:
    """Prints the end of what the processes here, or those of `everyone`, have said; with `follow` goes on until they have ended."""
    found = record.states(workdir)
    chosen = found if everyone else _own(found)
    paths = [files.log(process) for files, state in chosen for process in range(state.first, state.first + state.here)]
    paths = [path for path in paths if path.exists()]
    if not paths:
        raise ConfigError(f"--workdir={workdir}: no logs; what runs in the foreground speaks on its terminal")
    tails = [Tail(path, sys.stdout.fileno()) for path in paths]
    for path in paths:
        if len(paths) > 1:
            print(f"==> {path.name} <==")
        print("\n".join(path.read_text(encoding="utf-8", errors="replace").splitlines()[-last:]), flush=True)
    while follow and any(state.end is None and (everyone or record.lives(files)) for files, state in chosen):
        for tail in tails:
            tail.more()
        time.sleep(0.5)
        chosen = [one for one in record.states(workdir) if one[0] in [files for files, _ in chosen]]
    return DONE


def stop(workdir: Path, *, kind: str = "host", seconds: float = STOPPING) -> int:
    """Tells the run on this machine to save and end, and waits for it. By pid, and only while its lock says that it lives."""
    alive = [(files, state) for files, state in _own(record.states(workdir)) if files.kind == kind and record.lives(files)]
    if not alive:
        say(f"{workdir}: nothing is under way on {socket.gethostname()}")
        return DONE
    for _, state in alive:
        say(f"{state.run} on {state.host}: SIGTERM to pid {state.pid}")
        os.kill(state.pid, signal.SIGTERM)
    deadline = time.monotonic() + seconds
    while any(record.lives(files) for files, _ in alive):
        if time.monotonic() > deadline:
            say(f"{workdir}: still under way after {seconds:g} s")
            return ERROR
        time.sleep(0.1)
    return DONE


ACTIONS: Mapping[str, Callable[[Path], int]] = {"status": status, "logs": logs, "stop": stop}


def tell_versions() -> int:
    """Prints what a run here would use, for comparing; imports of packages only, nothing is started."""
    print(MARK + json.dumps({"host": socket.gethostname(), **versions()}), flush=True)
    return DONE
