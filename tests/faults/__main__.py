"""The long set: `python -m tests.faults TRIAL --seeds=0:10` adds a line of JSON a seed to a file, `… table` makes a table of it.

What was found is written down after every tenth trial, so that a set may be stopped and gone on with.
"""

import argparse
import json
from functools import partial
from pathlib import Path

from tests.faults.bench import Bench
from tests.faults.disks import disks, shim
from tests.faults.kills import kills, pairs
from tests.faults.notices import notices
from tests.faults.rivals import rivals
from tests.faults.shapes import shapes
from tests.faults.signals import signals
from tests.faults.stuck import stuck
from tests.faults.table import table

TRIALS = {
    "kills": kills,
    "background": partial(kills, background=True),
    "pairs": pairs,
    "notices": notices,
    "signals": signals,
    "rivals": rivals,
    "stuck": stuck,
    "disks": disks,
    "shapes": shapes,
}
TOGETHER = 10  # trials that one process compares, and that are written down then


def main() -> None:
    """Runs trials, or prints the table."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults")
    parser.add_argument("trial", choices=[*TRIALS, "table"])
    parser.add_argument(
        "--seeds",
        default="0:1",
        metavar="A:B",
        help="from A to B - 1; a trial is repeated by its seed",
    )
    parser.add_argument(
        "--folder",
        type=Path,
        default=Path("runs/faults"),
        metavar="DIR",
        help="where runs and results go",
    )
    args = parser.parse_args()
    folder = args.folder.resolve()
    if args.trial == "table":
        print(
            table(
                [
                    json.loads(line)
                    for line in (folder / "results.jsonl").read_text(encoding="utf-8").splitlines()
                ]
            )
        )
        return
    first, last = map(int, args.seeds.split(":"))
    steps = {"shapes": 100, "disks": 40, "stuck": 60}.get(args.trial, 30)
    preload = shim(folder) if args.trial == "disks" else ""
    with Bench(folder, steps, cache=args.trial != "shapes", preload=preload) as bench:
        for some in range(first, last, TOGETHER):
            found: list[dict] = []
            for seed in range(some, min(some + TOGETHER, last)):
                found.append(TRIALS[args.trial](bench, seed))
                print(json.dumps(found[-1]), flush=True)
            compared = compare(bench, found)
            with (folder / "results.jsonl").open("a", encoding="utf-8") as file:
                file.writelines(json.dumps(one) + "\n" for one in compared)


def compare(bench: Bench, found: list[dict]) -> list[dict]:
    """Says of each trial that ran to its end whether it came to the same bits as a run that nothing happened to."""
    runs = sorted({Path(one[name]) for one in found if "whole" in one for name in ("run", "whole")})
    came = dict(zip(map(str, runs), bench.digests(runs), strict=True)) if runs else {}
    for one in found:
        if "whole" in one:
            one["equal"] = came[one["run"]] == came[one["whole"]]
            print(one["trial"], one["seed"], "equal" if one["equal"] else "DIFFERENT", flush=True)
    return found


if __name__ == "__main__":
    main()
