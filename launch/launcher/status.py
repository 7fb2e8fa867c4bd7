"""Status, logs and stop of a run on this machine, read from the files that it leaves."""

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

STOP_TIMEOUT = 1_260.0  # seconds that `stop` waits: a little more than the supervisor's grace


class Tail:
    """Copies what is appended to a file to standard output."""

    def __init__(self, path: Path):
        self._path = path
        self._at = path.stat().st_size if path.exists() else 0

    def more(self) -> None:
        """Copies what has been appended since the last call."""
        if self._path.exists() and self._path.stat().st_size > self._at:
            with self._path.open("rb") as file:
                file.seek(self._at)
                self._at += sys.stdout.buffer.write(file.read(2**20))
            sys.stdout.flush()


def status(workdir: Path) -> int:
    """Prints the state of a run; returns 0 while it runs or if it succeeded, else its exit code."""
    states = record.states(workdir)
    if not states:
        raise ConfigError(f"--workdir={workdir}: this machine has not launched a run there")
    print("\n".join(record.lines(states, heartbeat.read, time.time())), flush=True)
    codes = [
        state.end if state.end is not None else (DONE if record.is_running(files) else ERROR)
        for files, state in _local(states)
    ]
    return max(codes, default=DONE)


def _local(states: list[tuple[Files, record.State]]) -> list[tuple[Files, record.State]]:
    """States of this machine; pids and locks of other machines mean nothing here."""
    return [(files, state) for files, state in states if state.host == socket.gethostname()]


def logs(workdir: Path, *, follow: bool = False, all_hosts: bool = False, last: int = 50) -> int:
    """Prints the last lines of each process's log; `follow` continues until the run ends."""
    states = record.states(workdir)
    chosen = states if all_hosts else _local(states)
    paths = [
        files.log(process)
        for files, state in chosen
        for process in range(state.first, state.first + state.here)
    ]
    paths = [path for path in paths if path.exists()]
    if not paths:
        raise ConfigError(
            f"--workdir={workdir}: no logs; a run in the foreground prints to its terminal"
        )
    tails = [Tail(path) for path in paths]
    for path in paths:
        if len(paths) > 1:
            print(f"==> {path.name} <==")
        text = path.read_text(encoding="utf-8", errors="replace")
        print("\n".join(text.splitlines()[-last:]), flush=True)
    while follow and any(
        state.end is None and (all_hosts or record.is_running(files)) for files, state in chosen
    ):
        for tail in tails:
            tail.more()
        time.sleep(0.5)
        chosen = [one for one in record.states(workdir) if one[0] in [files for files, _ in chosen]]
    return DONE


def stop(workdir: Path, *, kind: str = "host", seconds: float = STOP_TIMEOUT) -> int:
    """Tells the run on this machine to save and exit, and waits until it has.

    Signals a pid only while the run's lock proves that the process is alive.
    """
    running = [
        (files, state)
        for files, state in _local(record.states(workdir))
        if files.kind == kind and record.is_running(files)
    ]
    if not running:
        say(f"{workdir}: nothing is running on {socket.gethostname()}")
        return DONE
    for _, state in running:
        say(f"{state.run} on {state.host}: SIGTERM to pid {state.pid}")
        os.kill(state.pid, signal.SIGTERM)
    deadline = time.monotonic() + seconds
    while any(record.is_running(files) for files, _ in running):
        if time.monotonic() > deadline:
            say(f"{workdir}: still running after {seconds:g} s")
            return ERROR
        time.sleep(0.1)
    return DONE


ACTIONS: Mapping[str, Callable[[Path], int]] = {"status": status, "logs": logs, "stop": stop}
