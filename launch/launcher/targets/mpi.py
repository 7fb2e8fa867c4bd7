"""Open MPI: `mpirun`, supervised here, starts a process on each host.

Tested with version 4; for 5 only the command line is known.
"""

import re
from pathlib import Path

from launch.launcher import batch, staging, status, worker
from launch.launcher.job import folder_of, job_of
from launch.launcher.keys import read_keys
from launch.launcher.ranks import PORT
from launch.launcher.record import Files
from launch.launcher.request import Request
from launch.launcher.shell import Shell, Step
from launch.launcher.supervisor import Policy
from launch.launcher.targets import fleet
from launch.launcher.targets.ssh import hosts_of

RANKS_TIMEOUT = 10  # seconds for the other ranks to end after one has failed


def start(request: Request, shell: Shell) -> int:
    """Stages the code in a folder that all hosts share and runs to the end."""
    if request.key_file:
        read_keys(Path(request.key_file))
    output = shell.must(Step("here", ("mpirun", "--version")), assume="mpirun (Open MPI) 4.1.4")
    version = int(match[1]) if (match := re.search(r"\(Open MPI\) (\d+)", output)) else 4
    code = staging.here(request, shell)
    if not request.python:
        shell.must(
            Step("here", (str(code / "launch/setup.sh"), "--locked", request.platform or "cpu"))
        )
    if shell.dry:
        shell.call(Step("here", mpirun(request, code, version, PORT)))
        return 0
    workdir = Path(folder_of(request)).absolute()
    environment = worker.process_environment(job_of(request, "", str(workdir)))

    def run() -> int:
        policy = Policy(request.restarts, number=batch.STOP_SIGNAL)
        return batch.run(
            request.run_name,
            workdir,
            lambda: mpirun(request, code, version, worker.free_port()),
            environment,
            policy,
        )

    if request.detach:
        files = Files(workdir, 0, "batch")
        return worker.background(request.run_name, files, files.folder / "mpirun.log", run)
    return run()


def mpirun(request: Request, code: Path, version: int, port: int) -> tuple[str, ...]:
    """The mpirun command; with several hosts the coordinator's port is fixed, else it is `port`."""
    hosts = hosts_of(request) if request.hosts or request.host_file else []
    count = request.num_processes or len(hosts) or 1
    first = request.coordinator or (
        f"{hosts[0].rpartition('@')[2]}:{PORT}" if hosts else f"127.0.0.1:{port}"
    )
    python = request.python or str(code / fleet.VENV)
    keys = str(Path(request.key_file).absolute()) if request.key_file else ""
    workdir = str(Path(folder_of(request)).absolute())
    job = job_of(request, python, workdir, rank="mpi", restarts=0, coordinator=first, key_file=keys)
    wait = (
        "--mca" if version < 5 else "--prtemca",
        "odls_base_sigkill_timeout",
        str(RANKS_TIMEOUT),
    )
    where = ("--host", ",".join(f"{name}:1" for name in hosts)) if hosts else ()
    processes = ("-n", str(count), *where, "--wdir", str(code), "--bind-to", "none")
    return (
        "mpirun",
        *processes,
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
        return status.stop(workdir, kind="batch")
    if action == "logs":
        return status.logs(workdir, follow=follow, all_hosts=True)
    return status.status(workdir)
