"""`python -m launch.launcher train|eval|synth …`: what `launch/*.sh` run; `… host …` is what they run on other machines.

Exit codes: those of the run where this waits for its end, else 0 begun, 1 a tool or machine failed, 2 unknown option,
3 a value, name, key or tool is wrong or missing.
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path
from types import ModuleType
from typing import Any

from e5jax.errors import REPORTED, USAGE, ConfigError, exit_code, open_streams, report
from launch.launcher import batch, host, look, staging
from launch.launcher.check import check
from launch.launcher.command import ACTIONS, KINDS, RUNS, read
from launch.launcher.job import parse_job
from launch.launcher.record import read_json, write
from launch.launcher.request import Request
from launch.launcher.shell import Shell
from launch.launcher.targets import gke, local, mpi, queued, sky, slurm, ssh, tpu_vm

TARGETS: Mapping[str, ModuleType] = {
    "local": local,
    "ssh": ssh,
    "slurm": slurm,
    "mpi": mpi,
    "tpu-vm": tpu_vm,
    "queued": queued,
    "gke": gke,
    "sky": sky,
}
LAUNCHED = RUNS / "launched"


def main(argv: Sequence[str]) -> int:
    """Does what the command line asks. What is wrong is one line."""
    try:
        if argv[:1] == ["host"]:
            return on_host(argv[1], list(argv[2:]))
        if not argv or argv[0] not in KINDS:
            print("usage: launch/train.sh, launch/eval.sh or launch/synth.sh", file=sys.stderr)
            return USAGE
        script, *rest = argv
        if rest and rest[0] in ACTIONS:
            return consult(rest[0], rest[1:])
        return launch(read(script, rest))
    except REPORTED as error:
        return report(error)


def launch(request: Request) -> int:
    """Checks, shows or starts a run."""
    if request.check:
        return check(request)
    shell = Shell(request.dry_run)
    if request.target != "local":
        request = replace(
            request, commit=staging.commit(request.allow_dirty, request.config, dry=shell.dry)
        )
    if not shell.dry:
        LAUNCHED.mkdir(parents=True, exist_ok=True)
        write(LAUNCHED / f"{request.run_name}.json", asdict(request))
    return TARGETS[request.target].start(request, shell)


def consult(action: str, words: list[str]) -> int:
    """Status, logs or stop of a run that was launched from here."""
    follow = "--follow" in words
    names = [word for word in words if word != "--follow"]
    launched = sorted(path.stem for path in LAUNCHED.glob("*.json"))
    if len(names) != 1 or names[0] not in launched:
        there = (
            f"from here were launched: {', '.join(launched)}"
            if launched
            else "nothing was launched from here"
        )
        raise ConfigError(f"{action} {' '.join(names)}: name one run; {there}")
    values: dict[str, Any] = read_json(LAUNCHED / f"{names[0]}.json")
    known = {
        one.name for one in fields(Request)
    } & values.keys()  # another version may have had others
    chosen: dict[str, Any] = {
        name: tuple(values[name]) if isinstance(values[name], list) else values[name]
        for name in known
    }
    request = Request(**chosen)
    return TARGETS[request.target].act(request, Shell(), action, follow)


def on_host(action: str, words: list[str]) -> int:
    """What other machines are told to do."""
    if action in ("run", "detach"):
        job = parse_job(words)
        return host.detach(job) if action == "detach" else host.run(job, echo=True)[0]
    if action == "batch":
        name, workdir, restarts, *argv = words
        return batch.job(name, Path(workdir), argv, int(restarts))
    if action == "versions":
        return host.tell_versions()
    workdir = (
        Path(next(word for word in words if word.startswith("--workdir=")).partition("=")[2])
        .expanduser()
        .absolute()
    )
    return (
        look.logs(workdir, follow="--follow" in words)
        if action == "logs"
        else look.ACTIONS[action](workdir)
    )


if __name__ == "__main__":
    open_streams()
    sys.exit(exit_code(lambda: main(sys.argv[1:])))
