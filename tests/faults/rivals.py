"""Two processes that begin in one run directory at the same instant."""

import json
import re
import time
from random import Random

from tests.faults.bench import ALONE, LONG, Bench


def rivals(bench: Bench, seed: int) -> dict:
    """Starts two processes of one run, at most some milliseconds apart: one must train alone, the other name it and leave."""
    random, run = Random(seed), bench.folder / f"rivals-{seed}"
    children = bench.start(run, ALONE)
    time.sleep(random.choice([0, random.uniform(0, 0.05)]))
    children += bench.start(run, ALONE)
    codes = [child.wait(LONG) for child in children]
    steps = [
        json.loads(line)["step"]
        for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    winner, loser = children if codes[0] == 0 else reversed(children)
    named = re.search(
        r"another process is at work there \(process (\d+) on \S+, since [0-9TZ:-]+\)", loser.said
    )
    return {
        "trial": "rivals",
        "seed": seed,
        "run": str(run),
        "whole": str(bench.whole(ALONE)),
        "codes": sorted(codes),
        "once": steps == list(range(1, bench.steps + 1)),
        "named": named is not None and int(named[1]) == winner.pid,
        "said": loser.said[-2_000:],
    }
