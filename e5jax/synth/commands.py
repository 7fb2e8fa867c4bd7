"""`e5jax synth`: generates examples. The same command goes on where it was; what was paid for is never asked for again."""

import asyncio
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from e5jax.config.load import load_tree
from e5jax.config.serialize import differences, to_json, tree_from_json
from e5jax.errors import ConfigError
from e5jax.llm_client.request import Session, Stop
from e5jax.llm_client.session import open_session
from e5jax.synth import estimate
from e5jax.synth.answer import Halt
from e5jax.synth.brainstorm import gather_tasks
from e5jax.synth.collect import gather_examples
from e5jax.synth.collection import Collection
from e5jax.synth.config import Synth
from e5jax.synth.disk_dict import DiskDict
from e5jax.synth.documents import read_documents
from e5jax.synth.families import FAMILIES
from e5jax.synth.output import Output, write
from e5jax.synth.plan import Plan, counts
from e5jax.synth.progress import Progress
from e5jax.synth.prompts import examples
from e5jax.synth.relabel import ask, records, relabel
from e5jax.synth.tasks import Tasks, avoided
from e5jax.synth.validate import validate
from e5jax.workdir.directory import write_text

DONE, ERROR, AGAIN = 0, 1, 75
INTERRUPTED = "interrupted; the same command goes on"
FREE = (
    "config.endpoint.",
    "config.budget.",
    "config.checks.",
)  # may change between runs: no request depends on them


def main(path: str, overrides: Sequence[str], folder: Path, dry: bool) -> int:
    """Runs a config file. 0: done; 1: the budget is spent or the endpoint refuses; 75: interrupted, the same command goes on."""
    config = load_tree(Synth, validate, path, overrides)
    plan = Plan(
        config,
        read_documents(config.families.grounded.documents)
        if config.families.grounded.share
        else [],
    )
    if dry:
        print(dry_run(plan))
        return DONE
    output = Output(folder)
    _check_same(output, config)
    try:
        return asyncio.run(_run(plan, output))
    except asyncio.CancelledError:  # a second signal
        print(f"synth: {INTERRUPTED}", file=sys.stderr)
        return AGAIN


def dry_run(plan: Plan) -> str:
    """What would be asked, and what it would cost."""
    if plan.config.relabel is not None:
        given = list(records(plan.config.relabel))
        requests = [ask(plan, record, plan.config.relabel) for record in given]
        return f"{estimate.relabelling(plan.config, requests)}\n\n{_shown(requests[0].messages[-1].content, 'relabel')}"
    parts = [estimate.table(plan.config, estimate.lines(plan))]
    for family in FAMILIES:
        if not counts(plan.config)[family.name]:
            continue
        if family.brainstorms and plan.config.tasks.brainstorm:
            parts.append(
                _shown(plan.brainstorm(family, 0).messages[-1].content, f"{family.name}: tasks")
            )
        slot = next(plan.slots(family, examples(family.name) if family.brainstorms else ()))
        parts.append(_shown(plan.ask(slot).request.messages[-1].content, family.name))
    return "\n\n".join(parts)


def _shown(prompt: str, title: str) -> str:
    return f"--- {title} ---\n{prompt}"


def _check_same(output: Output, config: Synth) -> None:
    """Refuses a directory whose replies were asked for differently, and one in which others have what a run would replace."""
    if not output.config.exists():
        places = (
            output.examples,
            output.details,
            output.tasks,
            output.rejects,
            output.stats,
            output.report,
        )
        if taken := [place.name for place in places if place.exists()]:
            raise ConfigError(
                f"--output={output.root}: has {', '.join(taken)}, but no config.json of a run; choose another --output"
            )
        return
    before = tree_from_json(Synth, output.config.read_text(encoding="utf-8"))
    if changed := [line for line in differences(before, config) if not line.startswith(FREE)]:
        raise ConfigError(
            f"--output={output.root} holds a run with another configuration ({'; '.join(changed)}); "
            "choose another --output, or repeat the first configuration to go on"
        )


async def _run(plan: Plan, output: Output) -> int:
    halt, signals = Halt(), list[int]()
    async with open_session(
        plan.config.endpoint, plan.config.budget, output.journal, plan.config.seed
    ) as session:
        write_text(
            output.config, to_json(plan.config)
        )  # only now: there is a key, and no other run is at work here
        with _signals(session, halt, signals):
            found = await generate(plan, session, output, halt)
    print(summary(found, output))
    if halt.why is not None:
        print(f"synth: {halt.why}")
    return AGAIN if signals else ERROR if halt else DONE


@contextmanager
def _signals(session: Session, halt: Halt, received: list[int]) -> Iterator[None]:
    """SIGINT and SIGTERM: the first lets what is on its way arrive, the second does not wait for it."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None

    def interrupt(number: int) -> None:
        if received:
            task.cancel()
        received.append(number)
        print(
            "\nsynth: waiting for replies that are on their way; once more to leave at once",
            file=sys.stderr,
            flush=True,
        )
        session.stop(INTERRUPTED)
        halt.set(Stop(INTERRUPTED))

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, interrupt, number)
    try:
        yield
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)


async def generate(plan: Plan, session: Session, output: Output, halt: Halt) -> dict[str, Any]:
    """All of a run: tasks, examples, files. Returns the statistics."""
    config = plan.config
    output.root.mkdir(parents=True, exist_ok=True)
    with (
        Tasks(avoided(config.tasks.avoid), config.checks.near) as tasks,
        DiskDict(output.root) as shelf,
        Progress() as progress,
    ):
        run = Collection(config, plan, tasks, shelf, [], {}, halt, session, progress)
        if config.relabel is not None:
            return write(
                output, run, await relabel(run, config.relabel, list(records(config.relabel)))
            )
        await gather_tasks(run)
        return write(output, run, await gather_examples(run))


def summary(found: dict[str, Any], output: Output) -> str:
    """What came of it, in some lines."""
    counted = found["examples"]
    lines = [
        f"synth: {counted['kept']:,} of {counted['asked']:,} examples in {output.examples}; {output.report} says more"
    ]
    if counted["dropped"]:
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in found["dropped_for"].items())
        lines.append(f"synth: {counted['dropped']:,} dropped: {reasons}")
    if counted["open"]:
        why = (
            "too few tasks for them (tasks.most_a_task)"
            if found["complete"]
            else "still to be asked for"
        )
        lines.append(f"synth: {counted['open']:,} examples: {why}")
    return "\n".join(lines)
