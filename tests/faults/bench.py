"""A bench to break runs on: starts the processes of one, breaks them as a seed says, and knows what an unbroken run comes to."""

import contextlib
import fcntl
import json
import os
import re
import signal
import socket
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Self

from tests.faults.material import in_another_process
from tests.faults.nursery import FLAGS, Child, Nursery, cold

LAUNCHER = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
LONG = 240.0  # seconds after which a run is taken to hang


class Shape(NamedTuple):
    """How many processes of how many devices."""

    processes: int = 1
    devices: int = 8

    def __str__(self) -> str:
        return f"{self.processes}×{self.devices}"


ALONE, PAIR = Shape(1, 8), Shape(2, 4)


class Bench:
    """Below `folder`: the base that all runs share, a compile cache, and a folder a run. Use with `with`; two may have one folder.

    XLA keeps the order of collectives in a program that it has compiled, not in one that it has read from a cache: where two groups
    of CPU devices exchange something at a time, they wait for each other for ever. With all devices in one group, as here, none do.
    """

    def __init__(self, folder: Path, steps: int = 60, *, cache: bool = True, preload: str = ""):
        self.folder, self.root, self.steps = folder, folder / "base", steps
        self._nursery = Nursery(folder / "cache" if cache else None, preload)

    def __enter__(self) -> Self:
        with self._alone("base"):
            if not (self.root / "config.py").exists():
                in_another_process("make", self.root)
        self._nursery.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._nursery.__exit__(*error)

    def start(
        self,
        run: Path,
        shape: Shape,
        *options: str,
        sleeps: Mapping[int, tuple[str, int]] | None = None,
        last: tuple[str, ...] = (),
        forked: bool = True,
        **environment: str,
    ) -> list[Child]:
        """Starts all processes of a run, or goes on with it.

        A process in `sleeps` does so in a phase of a step; `last` are options of the last process alone.
        """
        log = run.with_name(f"{run.name}.log")
        attempt = len(list(log.glob("*-0"))) if log.exists() else 0
        command = [
            "run",
            f"--config={self.root / 'config.py'}",
            f"--workdir={run}",
            f"--config.optim.steps={self.steps}",
            *options,
        ]
        coordinator = f"127.0.0.1:{_free_port()}"
        children = []
        for process in range(shape.processes):
            own = {
                "XLA_FLAGS": f"--xla_force_host_platform_device_count={shape.devices} {FLAGS}",
                **environment,
            }
            if shape.processes > 1:
                own |= dict(
                    zip(LAUNCHER, (coordinator, str(shape.processes), str(process)), strict=True)
                )
            place, words = (
                log / f"{attempt}-{process}",
                [*command, *(last if process == shape.processes - 1 else ())],
            )
            child = (
                self._nursery.start(place, words, own, (sleeps or {}).get(process))
                if forked
                else cold(place, words, own)
            )
            children.append(child)
        return children

    def finish(self, run: Path, shape: Shape, *options: str) -> None:
        """Lets a run go on to its end."""
        for child in self.start(run, shape, *options):
            code = child.wait(LONG)
            assert code == 0, child.said

    def whole(self, shape: Shape, *options: str) -> Path:
        """A run that nothing happened to, made once."""
        name = f"whole-{shape.processes}x{shape.devices}-{self.steps}{''.join(options)}"
        with self._alone(name):
            if not (self.folder / name / "export").exists():
                self.finish(self.folder / name, shape, *options)
        return self.folder / name

    @contextlib.contextmanager
    def _alone(self, name: str) -> Iterator[None]:
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / f"{name}.lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def digests(self, runs: Sequence[Path]) -> list[dict]:
        """What each run came to."""
        return [json.loads(line) for line in in_another_process("digest", self.root, *runs)]


def logged(run: Path) -> int:
    """The last step whose metrics are written."""
    path = run / "metrics.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() else []
    return max((json.loads(line)["step"] for line in lines if line.endswith("\n")), default=0)


def resumed(child: Child) -> int | None:
    """The step at which a process began, if it came so far."""
    found = re.search(r"train: (?:resumes at step (\d+)|starts) of", child.said)
    return int(found[1] or 0) if found else None


def send(child: Child, number: int = signal.SIGKILL) -> bool:
    """Sends a signal; False if it had ended."""
    try:
        os.kill(child.pid, number)
    except ProcessLookupError:
        return False
    return child.code is None


def _free_port() -> int:
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        return opened.getsockname()[1]
