"""Signals to a run with worker processes, to it alone or to its process group, and workers that are killed."""

import os
import re
import signal
import time
from pathlib import Path
from random import Random

from tests.faults.bench import ALONE, LONG, Bench, resumed
from tests.faults.nursery import Child

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP)
OPTIONS = ("--config.data.workers=2",)
ENDS = {"process": 75, "group": 75, "worker": 1}  # exit codes of a run that is not over yet
LIMIT = 30.0  # seconds in which a run must end
KINDS = (
    *((number.name, who) for number in SIGNALS for who in ("process", "group")),
    ("SIGKILL", "worker"),
)


def signals(bench: Bench, seed: int) -> dict:
    """One of `KINDS` at a random moment; then the run goes on to its end, with workers or without."""
    random, (name, who) = Random(seed), KINDS[seed % len(KINDS)]
    run = bench.folder / f"signals-{seed}"
    trial: dict = {
        "trial": "signals",
        "seed": seed,
        "run": str(run),
        "whole": str(bench.whole(ALONE)),
    }
    trial |= {"signal": name, "who": who}
    (child,) = bench.start(run, ALONE, *OPTIONS)
    child.reaches("read", 0, LONG)
    victim = _worker(child, random) if who == "worker" else child.pid
    _wait_for_moment(child, random, bench.steps)
    begin, phase = time.monotonic(), child.phases[-1][0]
    sent = _send(victim, signal.Signals[name], group=who == "group")
    trial |= {"phase": phase, "sent": sent and child.code is None, "code": child.wait(LIMIT)}
    trial |= {"seconds": time.monotonic() - begin, "lines": _errors(child)}
    (child,) = bench.start(run, ALONE, *random.choice((OPTIONS, ())))
    assert child.wait(LONG) == 0, child.said
    return trial | {"resumed": resumed(child)}


def _wait_for_moment(child: Child, random: Random, steps: int) -> None:
    part = random.random()
    if part < 0.2:
        time.sleep(random.uniform(0, 3))  # reads, loads, compiles
    elif part < 0.9:
        child.reaches(
            random.choice(("batch", "step", "step", "save")), random.randint(1, steps), LONG
        )
        time.sleep(random.uniform(0, 0.05))
    else:
        child.reaches("export", 0, LONG)
        time.sleep(random.uniform(0, 0.5))


def _worker(child: Child, random: Random) -> int:
    """The pid of one of its workers, or its own if it has ended before it had any."""
    deadline = time.monotonic() + LONG
    while child.code is None and time.monotonic() < deadline:
        if len(workers := _workers(child.pid)) == 2:
            return random.choice(workers)
        time.sleep(0.005)
    return child.pid


def _workers(parent: int) -> list[int]:
    """The pids of the worker processes of a run."""
    pids = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            stat, words = (path / "stat").read_text(), (path / "cmdline").read_bytes()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(stat.rpartition(")")[2].split()[1]) == parent and re.search(
            rb"e5jax\.data\.feed import work", words
        ):
            pids.append(int(path.name))
    return sorted(pids)


def _send(pid: int, number: int, *, group: bool) -> bool:
    try:
        (os.killpg if group else os.kill)(pid, number)
    except ProcessLookupError:
        return False
    return True


def _errors(child: Child) -> list[str]:
    """What it says of its end."""
    return [line for line in child.said.splitlines() if line.startswith(("e5jax: ", "Traceback"))]
