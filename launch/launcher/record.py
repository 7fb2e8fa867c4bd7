"""What a launch leaves below `launch/` of a run's directory: state, logs, environment, and a lock that keeps a second one away."""

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
    """Paths of one host's launch; hosts that see the same directory each have their own, by their first process.

    A `batch` is what keeps all of them going, where Slurm or MPI start them.
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
        """What a process says."""
        return self.folder / f"process-{process}.log"

    def phase(self, process: int) -> Path:
        """Where a process is."""
        return self.folder / f"process-{process}.phase"


class State(NamedTuple):
    """One launch: who supervises `here` processes from `first` on, since when, how each attempt ended, and the code of its end."""

    kind: str

    run: str
    host: str
    pid: int
    since: float  # seconds since 1970
    first: int
    here: int
    attempts: tuple[tuple[int, int], ...] = ()  # (exit code, step)
    end: int | None = None


def fresh(files: Files, run: str, here: int) -> State:
    """A launch that begins now, in this process."""
    return State(files.kind, run, socket.gethostname(), os.getpid(), time.time(), files.first, here)


def write(path: Path, values: Mapping[str, Any]) -> None:
    """Writes JSON whole or not at all."""
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
    """The text of a file; `name` is what the user calls it. Raises ConfigError if it is not UTF-8."""
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{name}{path}: not UTF-8 ({error.reason} at byte {error.start}); write it anew as UTF-8"
        ) from error


def read_json(path: Path) -> dict[str, Any]:
    """What `write` wrote. Raises ConfigError for anything else."""
    try:
        return json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise ConfigError(
            f"{path}: not JSON ({error}); delete it, the launcher writes it anew"
        ) from error


def keep(files: Files, state: State) -> None:
    """Writes a launch's state."""
    write(files.state, state._asdict())


def states(workdir: Path) -> list[tuple[Files, State]]:
    """All launches that have left something here, by their first process."""
    found = []
    for path in sorted(
        (workdir / FOLDER).glob("*-*.json"), key=lambda path: int(path.stem.partition("-")[2])
    ):
        if path.stem.startswith("environment"):
            continue
        values = read_json(path)
        values["attempts"] = tuple(tuple(attempt) for attempt in values["attempts"])
        found.append((Files(workdir, values["first"], values["kind"]), State(**values)))
    return found


@contextmanager
def locked(files: Files, *, inherited: bool = False) -> Iterator[None]:
    """Inside, no other launch of this run can begin on this host. With `inherited` it lasts as long as what replaces this process.

    Raises ConfigError when there is one already.
    """
    try:
        files.folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"--workdir={files.workdir}: cannot be made: {error.strerror}; choose another one"
        ) from error
    descriptor = os.open(files.lock, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        raise ConfigError(
            f"--workdir={files.workdir}: this run is under way; `status` says where, `stop` ends it; or choose another --workdir"
        ) from error
    os.set_inheritable(descriptor, inherited)
    try:
        yield
    finally:
        os.close(descriptor)


def lives(files: Files) -> bool:
    """Whether the launch is under way on this machine."""
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
    """A line a host and one a process, for people."""
    for files, state in states:
        running = state.end is None and (state.host != socket.gethostname() or lives(files))
        what = (
            f"pid {state.pid}"
            if running
            else f"ended, exit code {state.end}"
            if state.end is not None
            else "gone without a word"
        )
        restarts = max(0, len(state.attempts) - (0 if running else 1))
        yield f"{state.run} on {state.host}: {what}, for {_time(now - state.since)}, {restarts} restarts"
        for process in range(state.first, state.first + state.here):
            name, step = phase_of(files.phase(process))
            if name:
                yield f"  process {process}: {'in' if running else 'was in'} phase {name}, step {step}"


def _time(seconds: float) -> str:
    minutes, hours = divmod(int(seconds) // 60, 60)[::-1]
    return (
        f"{hours} h {minutes} min" if hours else f"{minutes} min" if minutes else f"{seconds:.0f} s"
    )
