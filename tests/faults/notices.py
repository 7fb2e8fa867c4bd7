"""Notices to stop, in every phase of a run."""

import re
import signal
import time
from random import Random

from tests.faults.bench import LONG, PAIR, Bench, Shape, send

PHASES = ("import", "read", "load", "compile", "step", "save", "export")


def notices(bench: Bench, seed: int, phase: str = "", shape: Shape = PAIR) -> dict:
    """A signal to one process in a phase, the next of `PHASES` unless one is named; then the run goes on."""
    random = Random(seed)
    phase = phase or PHASES[seed % len(PHASES)]
    run = bench.folder / f"notices-{shape.processes}-{phase}-{seed}"
    found: dict = {
        "trial": "notices",
        "seed": seed,
        "run": str(run),
        "whole": str(bench.whole(shape)),
        "phase": phase,
    }
    children = bench.start(run, shape, forked=phase != "import")
    told = random.randrange(shape.processes)
    number = random.choice((signal.SIGTERM, signal.SIGINT))
    if phase == "import":
        time.sleep(random.uniform(1.0, 2.0))  # Python itself has begun, and JAX has not
    else:
        children[told].reaches(
            phase, random.randint(1, bench.steps - 10) if phase in ("step", "save") else 0, LONG
        )
        time.sleep(random.uniform(0, 0.05))
    begin = time.monotonic()
    assert send(children[told], number), children[told].said
    found |= {
        "told": told,
        "signal": number.name,
        "codes": [child.wait(LONG) for child in children],
    }
    found["seconds"] = time.monotonic() - begin
    saved = sorted(int(path.parent.name) for path in (run / "checkpoints").glob("*/MANIFEST"))
    children = bench.start(run, shape)
    assert [child.wait(LONG) for child in children] == [0] * shape.processes, children[0].said
    at = re.search(r"resumes at step (\d+)", children[0].said)
    last = saved[-1] if saved else 0
    found |= {
        "saved": last,
        "resumed": last if "train: complete" in children[0].said else int(at[1]) if at else 0,
    }
    return found
