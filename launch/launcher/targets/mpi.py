"""Open MPI: `mpirun` starts a process on each host, and is supervised here. Version 4; 5 is known by its command line only."""

import re
from pathlib import Path

from launch.launcher import batch, host, look, staging
from launch.launcher.jobs import folder_of, job_of
from launch.launcher.keys import read_keys
from launch.launcher.ranks import PORT
from launch.launcher.record import Files
from launch.launcher.request import Request
from launch.launcher.shell import Shell, Step
from launch.launcher.supervisor import Policy
from launch.launcher.targets import fleet
from launch.launcher.targets.ssh import hosts_of

# Seconds for the other ranks when one has ended with another code than 0; mpirun always waits so long, 1 by default.
ENDING = 10


def start(request: Request, shell: Shell) -> int:
    """Stages code where all hosts see it, and runs to the end."""
    if request.key_file:
        read_keys(Path(request.key_file))
    said = shell.must(Step("here", ("mpirun", "--version")), assume="mpirun (Open MPI) 4.1.4")
    version = int(found[1]) if (found := re.search(r"\(Open MPI\) (\d+)", said)) else 4
    code = staging.here(request, shell)
    if not request.python:
        shell.must(
            Step("here", (str(code / "launch/setup.sh"), "--locked", request.platform or "cpu"))
        )
    if shell.dry:
        shell.call(Step("here", mpirun(request, code, version, PORT)))
        return 0
    workdir = Path(folder_of(request)).absolute()
    environment = host.surroundings(job_of(request, "", str(workdir)))

    def go() -> int:
        policy = Policy(request.restarts, number=batch.NUMBER)
        return batch.run(
            request.run_name,
            workdir,
            lambda: mpirun(request, code, version, host.free_port()),
            environment,
            policy,
        )

    if request.detach:
        files = Files(workdir, 0, "batch")
        return host.background(request.run_name, files, files.folder / "mpirun.log", go)
    return go()


def mpirun(request: Request, code: Path, version: int, port: int) -> tuple[str, ...]:
    """The command; on several hosts the first one's port is always the same."""
    hosts = hosts_of(request) if request.hosts or request.host_file else []
    count = request.num_processes or len(hosts) or 1
    first = request.coordinator or (
        f"{hosts[0].rpartition('@')[2]}:{PORT}" if hosts else f"127.0.0.1:{port}"
    )
    python = request.python or str(code / fleet.VENV)
    keys = str(Path(request.key_file).absolute()) if request.key_file else ""
    workdir = str(Path(folder_of(request)).absolute())
    job = job_of(request, python, workdir, rank="mpi", restarts=0, coordinator=first, key_file=keys)
    wait = ("--mca" if version < 5 else "--prtemca", "odls_base_sigkill_timeout", str(ENDING))
    where = ("--host", ",".join(f"{name}:1" for name in hosts)) if hosts else ()
    place = ("-n", str(count), *where, "--wdir", str(code), "--bind-to", "none")
    return (
        "mpirun",
        *place,
        *wait,
        *request.mpirun,
        python,
        "-m",
        "launch.launcher",
        "host",
        "run",
        *job.arguments(),
    )


def act(request: Request, _shell: Shell, action: str, follow: bool) -> int:
    """Status, logs or stop, on the machine where mpirun runs."""
    workdir = Path(folder_of(request)).absolute()
    if action == "stop":
        return look.stop(workdir, kind="batch")
    return (
        look.logs(workdir, follow=follow, everyone=True)
        if action == "logs"
        else look.status(workdir)
    )
