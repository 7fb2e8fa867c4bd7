"""`python -m launch.launcher train|eval|synth …`, which `launch/*.sh` run.

`… host …` is what the launcher runs on other machines. Exit codes: that of the run if the launcher
waits for its end, otherwise 0 (started), 1 (a tool or machine failed), 2 (unknown option) or 3
(a value, name, key or tool is wrong or missing).
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path
from types import ModuleType
from typing import Any

from e5jax.errors import REPORTED, USAGE, ConfigError, exit_code, open_streams, report
from launch.launcher import batch, staging, status, worker
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
    """Runs a command line. Reports an error in one line."""
    try:
        if argv[:1] == ["host"]:
            return run_on_host(argv[1], list(argv[2:]))
        if not argv or argv[0] not in KINDS:
            print("usage: launch/train.sh, launch/eval.sh or launch/synth.sh", file=sys.stderr)
            return USAGE
        script, *rest = argv
        if rest and rest[0] in ACTIONS:
            return act(rest[0], rest[1:])
        return launch(read(script, rest))
    except REPORTED as error:
        return report(error)


def launch(request: Request) -> int:
    """Checks, prints or starts a run."""
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


def act(action: str, arguments: list[str]) -> int:
    """Shows the status or logs of a run that was launched from this directory, or stops it."""
    names = [argument for argument in arguments if argument != "--follow"]
    launched = sorted(path.stem for path in LAUNCHED.glob("*.json"))
    if len(names) != 1 or names[0] not in launched:
        known = (
            f"launched from here: {', '.join(launched)}"
            if launched
            else "nothing was launched from here"
        )
        raise ConfigError(f"{action} {' '.join(names)}: name one run; {known}")
    values = read_json(LAUNCHED / f"{names[0]}.json")
    known_fields = {field.name for field in fields(Request)} & values.keys()  # of this version
    request_values: dict[str, Any] = {
        name: tuple(values[name]) if isinstance(values[name], list) else values[name]
        for name in known_fields
    }
    request = Request(**request_values)
    return TARGETS[request.target].act(request, Shell(), action, "--follow" in arguments)


def run_on_host(action: str, arguments: list[str]) -> int:
    """Runs what the launcher has asked this machine to do."""
    if action in ("run", "detach"):
        job = parse_job(arguments)
        return worker.detach(job) if action == "detach" else worker.run(job, echo=True)[0]
    if action == "batch":
        name, folder, restarts, *argv = arguments
        return batch.job(name, Path(folder), argv, int(restarts))
    if action == "versions":
        return worker.print_versions()
    option = next(argument for argument in arguments if argument.startswith("--workdir="))
    workdir = Path(option.partition("=")[2]).expanduser().absolute()
    if action == "logs":
        return status.logs(workdir, follow="--follow" in arguments)
    return status.ACTIONS[action](workdir)


if __name__ == "__main__":
    open_streams()
    sys.exit(exit_code(lambda: main(sys.argv[1:])))
