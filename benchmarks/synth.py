"""Synthetic data: replies checked a second on one core, the slowest of many broken replies, and examples a second end to end.

    python benchmarks/synth.py --output=synth.json

Needs the extra demo. The endpoint is the demo's, in a process of its own: on two cores it takes one.
"""

import argparse
import contextlib
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from random import Random
from typing import NamedTuple

from e5jax.config.load import load_tree
from e5jax.llm_client.request import Reply
from e5jax.synth.collect import fit
from e5jax.synth.config import Synth
from e5jax.synth.families import FAMILIES
from e5jax.synth.plan import Asked, Plan
from e5jax.synth.prompts import examples
from e5jax.synth.reasons import UnfitError
from e5jax.synth.sampling import seeded
from e5jax.synth.validate import validate
from examples.demo_endpoint.fill import fill

CONFIG = Path(__file__).parents[1] / "configs/synth_demo.py"
ODD = (
    '"',
    "\\",
    "{",
    "}",
    "[",
    "\0",
    "\ud800",
    "\u2028",
    "NaN",
    "1e999",
    "```",
    "\ufeff",
    "</s>",
    "\\u",
    "9" * 5_000,
    "[" * 9_000,
)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--replies",
        type=int,
        default=5_000,
        metavar="N",
        help="that are checked (default: %(default)s)",
    )
    parser.add_argument(
        "--broken", type=int, default=10_000, metavar="N", help="broken ones (default: %(default)s)"
    )
    parser.add_argument(
        "--examples", type=int, default=5_000, metavar="N", help="end to end (default: %(default)s)"
    )
    parser.add_argument("--output", type=Path, metavar="FILE", help="JSON")
    args = parser.parse_args()
    config = load_tree(Synth, validate, str(CONFIG), [f"--config.examples={args.replies}"])
    pairs = list(replies(config))
    found = {
        **checked(config, pairs),
        **broken(config, pairs, args.broken),
        **end_to_end(args.examples),
    }
    for name, value in found.items():
        print(
            f"{name.replace('_', ' '):<34}",
            f"{value:>14,.4g}" if isinstance(value, float) else f"{value!s:>14}",
        )
    if args.output:
        args.output.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


def replies(config: Synth) -> Iterator[tuple[Asked, Reply]]:
    """What the demo would say to the plan's requests, in the proportions of the families and languages."""
    plan = Plan(config)
    slots = (
        plan.slots(family, examples(family.name) * 500 if family.brainstorms else ())
        for family in FAMILIES
    )
    for asked in map(plan.ask, chain.from_iterable(slots)):
        text = json.dumps(
            fill(asked.request.schema or {}, seeded(asked.slot.id)), ensure_ascii=False
        )
        yield asked, Reply(asked.request.id, 0, text, "stop", "demo", 1, 1)


def checked(config: Synth, pairs: list[tuple[Asked, Reply]]) -> dict[str, object]:
    """Parser and all checks on one core."""
    fits(config, pairs[0])  # loads the identifier
    start, wall = time.process_time(), time.perf_counter()
    reasons = Counter(fits(config, pair) for pair in pairs)
    seconds, wall = time.process_time() - start, time.perf_counter() - wall
    size = sum(len(reply.text.encode()) for _, reply in pairs) / len(pairs)
    return {
        "replies": len(pairs),
        "bytes_a_reply": size,
        "taken": reasons["taken"],
        "checked_a_second_of_cpu": len(pairs) / seconds,
        "checked_a_second": len(pairs) / wall,
    }


def fits(config: Synth, pair: tuple[Asked, Reply]) -> str:
    """`taken`, or the reason why not."""
    try:
        fit(*pair, config)
    except UnfitError as unfit:
        return unfit.reason
    return "taken"


def broken(config: Synth, pairs: list[tuple[Asked, Reply]], count: int) -> dict[str, object]:
    """Replies with random damage: none may crash, none may take long."""
    random, slowest, reasons = Random(1), 0.0, Counter[str]()
    for _ in range(count):
        asked, reply = random.choice(pairs)
        text = reply.text
        for _ in range(random.randrange(1, 6)):
            at = random.randrange(len(text) + 1)
            text = (
                text[:at]
                + random.choice(ODD) * random.choice((1, 1, 1, 100))
                + text[at + random.randrange(3) :]
            )
        start = time.perf_counter()
        reasons[fits(config, (asked, reply._replace(text=text)))] += 1
        slowest = max(slowest, time.perf_counter() - start)
    return {"broken_replies": count, "slowest_seconds": slowest, "broken_reasons": len(reasons)}


def end_to_end(count: int) -> dict[str, object]:
    """`e5jax synth` against the demo endpoint: asked, journalled, checked, written."""
    before = cpu_of_children()
    with endpoint() as address:
        first = run(address, 1)  # little but the start
        all_of_it = run(address, count)
    kept, seconds, cpu = all_of_it
    served = cpu_of_children() - before - cpu - first.cpu
    return {
        "examples": kept,
        "seconds": seconds,
        "examples_a_second": kept / seconds,
        "without_the_start": (kept - first.kept) / (seconds - first.seconds),
        "examples_a_second_of_cpu": kept / cpu,
        "cpu_ms_an_example": 1e3 * (cpu - first.cpu) / (kept - first.kept),  # without the start
        "cpu_ms_of_the_endpoint": 1e3 * served / kept,  # its start included
    }


class Run(NamedTuple):
    """One run of the command."""

    kept: int
    seconds: float
    cpu: float  # seconds


def run(address: str, count: int) -> Run:
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "run"
        options = [
            f"--output={output}",
            f"--config.examples={count}",
            f"--config.endpoint.base_url={address}",
        ]
        command = [sys.executable, "-m", "e5jax", "synth", f"--config={CONFIG}", *options]
        start, before = time.perf_counter(), cpu_of_children()
        subprocess.run(command, check=True, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        seconds, cpu = time.perf_counter() - start, cpu_of_children() - before
        return Run(
            json.loads((output / "stats.json").read_text(encoding="utf-8"))["examples"]["kept"],
            seconds,
            cpu,
        )


def cpu_of_children() -> float:
    """Seconds of those that have ended: not the endpoint while it runs."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


@contextlib.contextmanager
def endpoint() -> Iterator[str]:
    with subprocess.Popen(
        [sys.executable, "-m", "examples.demo_endpoint"], stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout is not None
        yield server.stdout.readline().strip()
        server.terminate()


if __name__ == "__main__":
    main()
