"""Processes that live and do nothing."""

import math
import re
import signal
import time
from random import Random

from e5jax.distributed.watchdog import EVERY
from tests.faults.bench import LONG, PAIR, Bench, send
from tests.faults.nursery import Child

PHASES = ("batch", "step", "save", "load")


def stuck(bench: Bench, seed: int, limit: int = 8) -> dict:
    """One of two processes is stopped, or sleeps, in a phase: all that can must exit with 99 and say who was late in what."""
    random = Random(seed)
    run, stopped = bench.folder / f"stuck-{seed}", seed % 2 == 0
    late, phase = random.randrange(2), PHASES[seed // 2 % len(PHASES)]
    step = {"load": 0, "save": 10}.get(phase, random.randint(3, bench.steps - 1))
    limits = [f"--config.watchdog.{name}={limit}" for name in ("step", "silence")]
    if phase == "load" and not stopped:
        limits.append(f"--config.watchdog.start={limit}")
    if phase == "save":
        limits.append(f"--config.checkpoint.seconds={limit}")  # a save is given these on top
    children = bench.start(run, PAIR, *limits, sleeps=None if stopped else {late: (phase, step)})
    assert children[late].reaches(phase, step, LONG), (
        f"ended before phase {phase} of step {step}: {children[late].said}"
    )
    begin, wanted = time.monotonic(), {phase}
    if stopped:
        send(children[late], signal.SIGSTOP)
        wanted = lately(children[late], begin)
    other = children[1 - late].wait(LONG)
    seconds = time.monotonic() - begin
    if stopped:
        send(children[late], signal.SIGCONT)
    own = children[late].wait(LONG)
    said = re.search(r"watchdog: process (\d) .*? in phase '(\w+)'", children[1 - late].said)
    return {
        "trial": "stuck",
        "seed": seed,
        "how": "stopped" if stopped else "sleeps",
        "late": late,
        "limit": 2 * limit if phase == "save" and not stopped else limit,
        "phase": phase,
        "codes": [other, own],
        "seconds": seconds,
        "named": said is not None and (int(said[1]), said[2]) in {(late, name) for name in wanted},
        "said": said[0] if said else children[1 - late].said[-2_000:],
    }


def lately(child: Child, now: float) -> set[str]:
    """The phases that a process may have been in when it last gave a sign of itself."""
    entered = child.phases
    ends = [*(at for *_, at in entered[1:]), math.inf]
    return {name for (name, _, _), end in zip(entered, ends, strict=True) if end > now - 2 * EVERY}
