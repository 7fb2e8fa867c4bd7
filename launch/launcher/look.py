"""How a run on this machine does, what it says, and its end: by the files that it leaves."""

import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from e5jax.distributed import heartbeat
from e5jax.errors import DONE, ERROR, ConfigError
from launch.launcher import record
from launch.launcher.record import Files
from launch.launcher.supervisor import say

STOPPING = 1_260.0  # seconds that `stop` waits: a little more than the supervisor's grace


class Tail:
    """Copies what is added to a file to standard output."""

    def __init__(self, path: Path):
        self._path = path
        self._at = path.stat().st_size if path.exists() else 0

    def more(self) -> None:
        """Copies what has been added since."""
        if self._path.exists() and self._path.stat().st_size > self._at:
            with self._path.open("rb") as file:
                file.seek(self._at)
                self._at += sys.stdout.buffer.write(file.read(2**20))
            sys.stdout.flush()


def status(workdir: Path) -> int:
    """Says how a run does. Returns 0 if it is under way or done, else how it ended, as far as this machine knows."""
    found = record.states(workdir)
    if not found:
        raise ConfigError(f"--workdir={workdir}: nothing was launched there from this machine")
    print("\n".join(record.lines(found, heartbeat.read, time.time())), flush=True)
    ends = [
        state.end if state.end is not None else (DONE if record.lives(files) else ERROR)
        for files, state in _own(found)
    ]
    return max(ends, default=DONE)


def _own(found: list[tuple[Files, record.State]]) -> list[tuple[Files, record.State]]:
    """Only what runs on this machine: the others' pids and locks mean nothing here."""
    return [(files, state) for files, state in found if state.host == socket.gethostname()]


def logs(workdir: Path, *, follow: bool = False, everyone: bool = False, last: int = 50) -> int:
    """Prints the end of what the processes here, or those of `everyone`, have said; with `follow` goes on until they have ended."""
    found = record.states(workdir)
    chosen = found if everyone else _own(found)
    paths = [
        files.log(process)
        for files, state in chosen
        for process in range(state.first, state.first + state.here)
    ]
    paths = [path for path in paths if path.exists()]
    if not paths:
        raise ConfigError(
            f"--workdir={workdir}: no logs; what runs in the foreground speaks on its terminal"
        )
    tails = [Tail(path) for path in paths]
    for path in paths:
        if len(paths) > 1:
            print(f"==> {path.name} <==")
        print(
            "\n".join(path.read_text(encoding="utf-8", errors="replace").splitlines()[-last:]),
            flush=True,
        )
    while follow and any(
        state.end is None and (everyone or record.lives(files)) for files, state in chosen
    ):
        for tail in tails:
            tail.more()
        time.sleep(0.5)
        chosen = [one for one in record.states(workdir) if one[0] in [files for files, _ in chosen]]
    return DONE


def stop(workdir: Path, *, kind: str = "host", seconds: float = STOPPING) -> int:
    """Tells the run on this machine to save and end, and waits for it. By pid, and only while its lock says that it lives."""
    alive = [
        (files, state)
        for files, state in _own(record.states(workdir))
        if files.kind == kind and record.lives(files)
    ]
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
