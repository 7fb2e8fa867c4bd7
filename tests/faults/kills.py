"""Runs that are killed at random moments, and what becomes of them."""

import time
from random import Random

from tests.faults.bench import ALONE, LONG, PAIR, Bench, logged, resumed, send


def kills(
    bench: Bench, seed: int, times: int = 3, usual: float = 4.0, *, background: bool = False
) -> dict:
    """One process, killed so many times, each at a moment that is uniform over what is left of a run (`usual` seconds in all)."""
    trial = "background" if background else "kills"
    random, run = Random(seed), bench.folder / f"{trial}-{seed}"
    found: dict = {
        "trial": trial,
        "seed": seed,
        "run": str(run),
        "whole": str(bench.whole(ALONE)),
        "phases": [],
        "again": [],
    }
    while True:
        begin = time.monotonic()
        (child,) = bench.start(run, ALONE, f"--config.checkpoint.background={background}")
        moment = random.uniform(0, usual * (1 - 0.6 * logged(run) / bench.steps))
        while (
            len(found["phases"]) < times
            and child.code is None
            and time.monotonic() < begin + moment
        ):
            time.sleep(0.001)
        before = logged(run)
        if len(found["phases"]) < times and send(child):
            found["phases"].append(child.phases[-1][0] if child.phases else "start")
        code = child.wait(LONG)
        at = resumed(child)
        assert code in (0, -9), child.said
        if at is not None and "last" in found:
            found["again"].append(found["last"] - at)
        found["last"] = max(before, logged(run))
        if code == 0:
            return found


def pairs(bench: Bench, seed: int, silence: int = 5) -> dict:
    """Two processes, a random one of which is killed once at a random step or moment before the first."""
    random, run = Random(seed), bench.folder / f"pairs-{seed}"
    found: dict = {
        "trial": "pairs",
        "seed": seed,
        "run": str(run),
        "whole": str(bench.whole(PAIR)),
        "silence": silence,
    }
    children = bench.start(run, PAIR, f"--config.watchdog.silence={silence}")
    victim = random.randrange(2)
    if random.random() < 0.2:
        children[victim].reaches(random.choice(["load", "compile"]), 0, LONG)
    else:
        children[victim].reaches(
            random.choice(["step", "save"]), random.randint(1, bench.steps - 10), LONG
        )
    time.sleep(random.uniform(0, 0.1))
    found |= {"victim": victim, "phase": children[victim].phases[-1][0]}
    begin = time.monotonic()
    send(children[victim])
    found["code"] = children[1 - victim].wait(LONG)
    found["seconds"] = time.monotonic() - begin
    bench.finish(run, PAIR)
    return found
