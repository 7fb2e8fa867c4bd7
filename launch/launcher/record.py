"""Files below `launch/` in a run's directory: state, logs, environment, and a lock."""

import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from e5jax.errors import ConfigError, name_path

FOLDER = "launch"


class Files(NamedTuple):
    """Paths of one host's launch, named after its first process, since hosts share the directory.

    The kind `batch` is the supervisor of `srun` or `mpirun`.
    """

    workdir: Path
    first: int = 0
    kind: str = "host"

    @property
    def folder(self) -> Path:
        return self.workdir / FOLDER

    @property
    def state(self) -> Path:
        return self.folder / f"{self.kind}-{self.first}.json"

    @property
    def lock(self) -> Path:
        return self.folder / f"{self.kind}-{self.first}.lock"

    @property
    def environment(self) -> Path:
        return self.folder / f"environment-{self.first}.json"

    def log(self, process: int) -> Path:
        """The output of a process."""
        return self.folder / f"process-{process}.log"

    def phase(self, process: int) -> Path:
        """The heartbeat of a process: its phase and step."""
        return self.folder / f"process-{process}.phase"


class State(NamedTuple):
    """One launch of the processes `first` … `first + here - 1`, and how each attempt ended."""

    kind: str
    run: str
    host: str
    pid: int
    since: float  # seconds since 1970
    first: int
    here: int
    attempts: tuple[tuple[int, int], ...] = ()  # (exit code, step)
    end: int | None = None  # exit code


def new_state(files: Files, run: str, here: int) -> State:
    """The state of a launch that starts now, in this process."""
    return State(files.kind, run, socket.gethostname(), os.getpid(), time.time(), files.first, here)


def write(path: Path, values: Mapping[str, Any]) -> None:
    """Writes JSON atomically."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.touch(0o600)
        temporary.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        name_path(error, path)
        raise


def read_text(path: Path, name: str = "") -> str:
    """The text of a file; `name` precedes its path in the ConfigError if it is not UTF-8."""
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{name}{path}: not UTF-8 ({error.reason} at byte {error.start}); save it as UTF-8"
        ) from error


def read_json(path: Path) -> dict[str, Any]:
    """Reads a file of `write`. Raises ConfigError if it is not JSON."""
    try:
        return json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise ConfigError(
            f"{path}: not JSON ({error}); delete it, and the launcher writes a new one"
        ) from error


def write_state(files: Files, state: State) -> None:
    """Writes the state of a launch."""
    write(files.state, state._asdict())


def states(workdir: Path) -> list[tuple[Files, State]]:
    """All launches in a run's directory, sorted by their first process."""
    launches = []
    for path in sorted(
        (workdir / FOLDER).glob("*-*.json"), key=lambda path: int(path.stem.partition("-")[2])
    ):
        if path.stem.startswith("environment"):
            continue
        values = read_json(path)
        values["attempts"] = tuple(tuple(attempt) for attempt in values["attempts"])
        launches.append((Files(workdir, values["first"], values["kind"]), State(**values)))
    return launches


@contextmanager
def locked(files: Files, *, inherited: bool = False) -> Iterator[None]:
    """Holds the lock of a launch, so that no other one starts on this host.

    With `inherited` a program that replaces this process keeps the lock. Raises ConfigError if
    another launch holds it.
    """
    try:
        files.folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"--workdir={files.workdir}: cannot create it: {error.strerror}; choose another one"
        ) from error
    descriptor = os.open(files.lock, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        raise ConfigError(
            f"--workdir={files.workdir}: this run is already running; `status` shows where, "
            "`stop` ends it; or choose another --workdir"
        ) from error
    os.set_inheritable(descriptor, inherited)
    try:
        yield
    finally:
        os.close(descriptor)


def is_running(files: Files) -> bool:
    """Whether a process on this machine holds the lock of the launch."""
    if not files.lock.exists():
        return False
    descriptor = os.open(files.lock, os.O_RDWR)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def lines(states: Sequence[tuple[Files, State]], phase_of: Any, now: float) -> Iterator[str]:
    """One line per host and one per process for `status`."""
    for files, state in states:
        running = state.end is None and (state.host != socket.gethostname() or is_running(files))
        summary = "died" if state.end is None else f"ended, exit code {state.end}"
        summary = f"pid {state.pid}" if running else summary
        restarts = max(0, len(state.attempts) - (0 if running else 1))
        duration = _time(now - state.since)
        yield f"{state.run} on {state.host}: {summary}, for {duration}, {restarts} restarts"
        for process in range(state.first, state.first + state.here):
            name, step = phase_of(files.phase(process))
            if name:
                verb = "in" if running else "was in"
                yield f"  process {process}: {verb} phase {name}, step {step}"


def _time(seconds: float) -> str:
    minutes, hours = divmod(int(seconds) // 60, 60)[::-1]
    return (
        f"{hours} h {minutes} min" if hours else f"{minutes} min" if minutes else f"{seconds:.0f} s"
    )
