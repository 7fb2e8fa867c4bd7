"""What a run is, and what it may become: its configuration, the changes that were accepted, the record of what is complete."""

import json
import os
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

from e5jax.config import Config, Training
from e5jax.config.serialize import differences, to_json
from e5jax.errors import ConfigError, RecordError
from e5jax.jsonl import parse_object
from e5jax.storage import finished
from e5jax.workdir.directory import ALLOW, Workdir, read_config, write_text


def compare(workdir: Workdir, config: Config, allow: bool = False) -> list[str]:
    """The differences from the configuration that is there; changes nothing. A new directory has none.

    Raises ConfigError for differences without `allow`, for those that would falsify the record of what is complete, and for a
    directory without a run that holds what a run would read or replace.
    """
    if not workdir.config.exists():
        _check_new(workdir, config)
        return []
    # None of these changes what is trained on what, a mesh the last bits alone; all are mostly wanted once a run is under way.
    free = (".profile.", ".probe.", ".data.workers", ".watchdog.", ".mesh.", ".checkpoint.seconds")
    before = read_config(workdir)
    lines = differences(before, config)
    changed = [line for line in lines if not any(part in line.split(": ")[0] for part in free)]
    if changed and not allow:
        raise ConfigError(
            f"--workdir={workdir.root} holds a run with another configuration ({'; '.join(changed)}); "
            f"choose another --workdir, or repeat the first configuration to resume{ALLOW}"
        )
    if changed:
        _check_record(workdir, before, config, changed)
    return changed


def claim(workdir: Workdir, config: Config, allow: bool = False) -> None:
    """Writes config.json, as `compare` allows it, and records differences. What fewer steps came to is set aside."""
    changed = compare(workdir, config, allow)
    if not workdir.config.exists():
        write_text(workdir.config, to_json(config))
    elif changed:
        record(workdir, changed)
        if pretrain := [line for line in changed if line.startswith("config.pretrain.")]:
            record(workdir.pretrain, pretrain)
        write_text(workdir.config, to_json(config))
    if trained_steps(workdir) < config.optim.steps:
        _set_aside(workdir)


def trained_steps(workdir: Workdir) -> int:
    """Steps of a training that is complete, else 0."""
    if not workdir.trained.is_file():
        return 0
    try:
        return int(json.loads(workdir.trained.read_text(encoding="utf-8"))["steps"])
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"{workdir.trained}: is not the note of a training ({error}); delete it, and train again"
        ) from error


def _check_new(workdir: Workdir, config: Config) -> None:
    """Refuses a directory without a run in which others have what this run would read or replace."""
    unused = {"pretrain", *(() if "data" in config.stages or config.data.harvest else ("data",))}
    names = [
        name
        for name, value in vars(Workdir).items()
        if isinstance(value, property) and name not in unused
    ]
    places = [getattr(workdir, name) for name in names] + (
        [workdir.pretrain.root] if config.pretrain else []
    )
    if taken := sorted(place.name for place in places if os.path.lexists(place)):
        raise ConfigError(
            f"--workdir={workdir.root}: has {', '.join(taken)}, but no config.json of a run; choose another --workdir"
        )


def _check_record(workdir: Workdir, before: Config, config: Config, changed: Sequence[str]) -> None:
    """Refuses differences that would make config.json claim what was not done."""
    for stage, decides in _complete_stages(workdir, before):
        if wrong := [
            line
            for line in changed
            if decides(line.split(": ")[0]) and not _extends(line, before, config)
        ]:
            raise ConfigError(
                f"--allow-change: {stage} of --workdir={workdir.root} is complete and would not be redone, but config.json would "
                f"claim it ({'; '.join(wrong)}); only a larger config.optim.steps extends it: choose another --workdir"
            )
    for run, place, at in (
        (config, workdir, "config"),
        (config.pretrain, workdir.pretrain, "config.pretrain"),
    ):
        if run is None or not any(line.startswith(f"{at}.optim.steps: ") for line in changed):
            continue
        if (taken := _newest_step(place, run)) > run.optim.steps:
            raise ConfigError(
                f"--{at}.optim.steps={run.optim.steps}: the run has a checkpoint of step {taken}; "
                f"choose at least {taken}, or another --workdir"
            )


def _complete_stages(
    workdir: Workdir, config: Config
) -> Iterator[tuple[str, Callable[[str], bool]]]:
    """Each stage that is complete, and whether a field of the configuration decides what it did."""
    if workdir.data.is_dir():
        parts = ("data.harvest", "tokens.vocabulary")
        yield (
            "the data",
            lambda field: field.removeprefix("config.").removeprefix("pretrain.").startswith(parts),
        )
    if config.pretrain and (
        workdir.pretrain.export.is_dir() or _is_trained(workdir.pretrain, config.pretrain)
    ):
        yield "the pretraining", lambda field: field.startswith("config.pretrain")
    if _is_trained(workdir, config):
        later = ("config.export.", "config.eval.", "config.stages")
        yield "the training", lambda field: not field.startswith(later)
    if workdir.export.is_dir():
        yield "the export", lambda field: field.startswith("config.export.")
    if workdir.results.is_file():
        yield "the evaluation", lambda field: field.startswith("config.eval.")


def _is_trained(workdir: Workdir, run: Training) -> bool:
    return workdir.trained.is_file() or _newest_step(workdir, run) >= run.optim.steps


def _newest_step(workdir: Workdir, run: Training) -> int:
    return max(finished(workdir.checkpoints_of(run.checkpoint)), default=0)


def _extends(line: str, before: Config, config: Config) -> bool:
    return line.startswith("config.optim.steps: ") and config.optim.steps > before.optim.steps


def _set_aside(workdir: Workdir) -> None:
    """Moves what a shorter training came to into `earlier/STEPS`. The note of its steps goes last: until then this is repeated."""
    steps = trained_steps(workdir)
    for path in (workdir.export, workdir.results, workdir.report, workdir.trained) if steps else ():
        if path.exists():
            place = workdir.earlier / str(steps) / path.name
            place.parent.mkdir(parents=True, exist_ok=True)
            path.rename(place)


def record(workdir: Workdir, changed: Sequence[str], **where: int) -> None:
    """Records differences that were accepted, and says so."""
    line = {"when": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}", **where, "changed": list(changed)}
    before = workdir.changes.read_text(encoding="utf-8") if workdir.changes.exists() else ""
    write_text(workdir.changes, f"{before}{json.dumps(line)}\n")
    print(f"allowed, and recorded in {workdir.changes}: {'; '.join(changed)}", flush=True)


def changes(workdir: Workdir) -> list[dict[str, Any]]:
    """All that was recorded, the first one first. Raises ConfigError for a damaged line."""
    lines = workdir.changes.read_bytes().splitlines() if workdir.changes.exists() else ()
    try:
        return [parse_object(line) for line in lines]
    except RecordError as error:
        raise ConfigError(
            f"{workdir.changes}: is damaged ({error}); mend the line, or move the file away"
        ) from error
