"""Processes of the real trainer, forked from one that has imported everything: a hundred starts then take seconds, not minutes.

A line of JSON on stdin starts a child: its arguments, environment, where its output goes and what is to happen to it; its pid is
answered. When it has ended, its exit code is in a file beside its output. The child is told nothing by anybody but its own
`phase.enter`, which also writes the phase into a file, and may be made to sleep there.
"""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import ModuleType
from typing import NamedTuple, Self, cast

ROOT = Path(__file__).parents[2]
FLAGS = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"


class Child(NamedTuple):
    """A process that was started."""

    pid: int
    folder: Path

    @property
    def code(self) -> int | None:
        """Its exit code, or minus the signal's number, once it has ended."""
        text = _read(self.folder / "code")
        return int(text) if text.endswith("\n") else None

    @property
    def said(self) -> str:
        """All that it has printed."""
        return _read(self.folder / "said")

    @property
    def phases(self) -> list[tuple[str, int, float]]:
        """Phases that it has entered, their steps, and when, on the clock of time.monotonic."""
        lines = (line.split() for line in _read(self.folder / "phases").splitlines())
        return [(name, int(step), float(at)) for name, step, at in lines]

    def wait(self, seconds: float) -> int:
        """Its exit code; TimeoutError if it does not end in time."""
        deadline = time.monotonic() + seconds
        while (code := self.code) is None:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{self.folder}: still runs after {seconds} s\n{self.said}")
            time.sleep(0.005)
        return code

    def reaches(self, name: str, step: int, seconds: float) -> bool:
        """Waits until it is in this phase of this step, or a later one; False if it ends before."""
        deadline = time.monotonic() + seconds
        while not any(found == name and at >= step for found, at, _ in self.phases):
            if self.code is not None:
                return False
            if time.monotonic() > deadline:
                raise TimeoutError(
                    f"{self.folder}: no phase {name} of step {step} in {seconds} s\n{self.said}"
                )
            time.sleep(0.002)
        return True


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.exists() else ""


class Nursery:
    """Starts children. Use with `with`."""

    def __init__(self, cache: Path | None, preload: str = ""):
        self._cache, self._preload = cache, preload

    def __enter__(self) -> Self:
        environment = {
            **os.environ,
            "JAX_PLATFORMS": "cpu",
            "TOKENIZERS_PARALLELISM": "false",
            "HF_HUB_OFFLINE": "1",
        }
        environment.pop("XLA_FLAGS", None)
        if self._cache:
            environment |= {
                "JAX_COMPILATION_CACHE_DIR": str(self._cache),
                "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            }
        if self._preload:
            environment["LD_PRELOAD"] = self._preload
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.nursery"],
            cwd=ROOT,
            env=environment,
            stdin=-1,
            stdout=-1,
            text=True,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._to, self._from = self._process.stdin, self._process.stdout
        return self

    def __exit__(self, *_: object) -> None:
        self._to.close()
        self._process.wait(30)
        self._from.close()

    def start(
        self,
        folder: Path,
        arguments: list[str],
        environment: dict[str, str],
        sleeps: tuple[str, int] | None = None,
    ) -> Child:
        """Starts `e5jax ARGUMENTS`; what it does is written into `folder`. With `sleeps` it stays in that phase of that step."""
        folder.mkdir(parents=True)
        said = {
            "folder": str(folder),
            "arguments": arguments,
            "environment": environment,
            "sleeps": sleeps,
        }
        print(json.dumps(said), file=self._to, flush=True)
        return Child(int(self._from.readline()), folder)


def cold(folder: Path, arguments: list[str], environment: dict[str, str]) -> Child:
    """Starts `e5jax ARGUMENTS` as a shell would, to be told something while it imports."""
    folder.mkdir(parents=True)
    with (folder / "said").open("w", encoding="utf-8") as output:
        command = [sys.executable, "-m", "e5jax", *arguments]
        everything = {**os.environ, "JAX_PLATFORMS": "cpu", **environment}
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=everything,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    threading.Thread(target=_bury, args=(process.pid, folder), daemon=True).start()
    return Child(process.pid, folder)


# --- in the process that forks ---------------------------------------------------------------------------------


def serve() -> None:
    """Starts a child for each line."""
    import e5jax.__main__
    import e5jax.pipeline  # noqa: F401  everything that a child would import

    # As where PyTorch is not installed: an export is then not shown to libraries that take 15 s to import.
    cast(dict[str, ModuleType | None], sys.modules)["torch"] = None
    for line in sys.stdin:
        asked = json.loads(line)
        pid = os.fork()
        if pid == 0:
            _live(Path(asked["folder"]), asked["arguments"], asked["environment"], asked["sleeps"])
        threading.Thread(target=_bury, args=(pid, Path(asked["folder"])), daemon=True).start()
        print(pid, flush=True)


def _bury(pid: int, folder: Path) -> None:
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    (folder / "code").write_text(f"{code}\n", encoding="utf-8")


def _live(
    folder: Path, arguments: list[str], environment: dict[str, str], sleeps: list | None
) -> None:
    os.setsid()
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # though the harness be run with nohup
    output = os.open(folder / "said", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for descriptor in (1, 2):
        os.dup2(output, descriptor)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.environ.update(environment)
    from e5jax.cli import command
    from e5jax.distributed.heartbeat import Heartbeat

    enter = Heartbeat.enter
    phases = os.open(folder / "phases", os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def enter_and_record(heartbeat: Heartbeat, name: str, step: int | None = None) -> None:
        enter(heartbeat, name, step)
        phase = heartbeat.phase
        os.write(phases, f"{name} {phase.step} {phase.since}\n".encode())
        if sleeps is not None and (name, phase.step) == tuple(sleeps):
            time.sleep(1_000)

    Heartbeat.enter = enter_and_record
    sys.argv[1:] = arguments
    command()


if __name__ == "__main__":
    serve()
