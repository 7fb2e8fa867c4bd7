"""The long set: `python -m tests.faults TRIAL --seeds=0:10` adds a line of JSON a seed to a file, `… table` makes a table of it."""

import argparse
import json
import time
from functools import partial
from pathlib import Path

from tests.faults.bench import Bench
from tests.faults.disks import disks, shim
from tests.faults.kills import kills, pairs
from tests.faults.notices import notices
from tests.faults.shapes import shapes
from tests.faults.stuck import stuck
from tests.faults.table import table

TRIALS = {
    "kills": kills,
    "background": partial(kills, background=True),
    "pairs": pairs,
    "notices": notices,
    "stuck": stuck,
    "disks": disks,
    "shapes": shapes,
}


def main() -> None:
    """Runs trials, or prints the table."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults")
    parser.add_argument("trial", choices=[*TRIALS, "table"])
    parser.add_argument("--seeds", default="0:1", metavar="A:B", help="from A to B - 1; a trial is repeated by its seed")
    parser.add_argument("--folder", type=Path, default=Path("runs/faults"), metavar="DIR", help="where runs and results go")
    parser.add_argument("--seconds", type=float, default=1e9, help="after which no new trial begins")
    args = parser.parse_args()
    folder = args.folder.resolve()
    if args.trial == "table":
        print(table([json.loads(line) for line in (folder / "results.jsonl").read_text(encoding="utf-8").splitlines()]))
        return
    first, last = map(int, args.seeds.split(":"))
    begin, found = time.monotonic(), []
    steps = {"shapes": 100, "disks": 40, "stuck": 60}.get(args.trial, 30)
    preload = shim(folder) if args.trial == "disks" else ""
    with Bench(folder, steps, cache=args.trial != "shapes", preload=preload) as bench:
        for seed in range(first, last):
            if time.monotonic() - begin > args.seconds:
                break
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
