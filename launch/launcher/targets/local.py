"""The local machine: one process, which replaces the launcher, or several with a supervisor."""

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from e5jax.errors import ConfigError
from launch.launcher import status, worker
from launch.launcher.job import Job, folder_of, job_of
from launch.launcher.ranks import process_variables
from launch.launcher.request import Request
from launch.launcher.shell import Shell, Step

VENV = Path(".venv/bin/python")


def start(request: Request, shell: Shell) -> int:
    """Installs missing packages and runs to the end, or in the background with --detach."""
    python = python_of(request)
    platform = request.platform or local_platform()
    processes = request.num_processes or 1
    job = job_of(
        request,
        str(Path(python).absolute()),
        processes=processes,
        here=processes,
        platform=platform,
        key_file=request.key_file,
    )
    setup = setup_step(request.extras, platform)
    if shell.dry:
        if not request.python:
            shell.call(setup)
        _show(job)
        return 0
    if not request.python:
        set_up(setup)
    if request.detach:
        return worker.detach(job)
    if processes == 1 and not job.restarts and not job.bucket:
        worker.replace_process(job)
    return worker.run(job, echo=processes > 1, logs=processes > 1)[0]


def python_of(request: Request) -> str:
    """Interpreter of the run's processes. Raises ConfigError if --python is not executable."""
    if request.python and not os.access(request.python, os.X_OK):
        raise ConfigError(
            f"--python={request.python}: no such program; omit it, and an environment is installed"
        )
    return request.python or str(VENV)


def setup_step(extras: str, platform: str) -> Step:
    """The command that installs missing packages."""
    return Step(
        "here", ("launch/setup.sh", extras if platform == "cpu" else f"{extras},{platform}")
    )


def set_up(step: Step) -> None:
    """Runs the installation; its output goes to the terminal."""
    if code := subprocess.run(step.argv, check=False).returncode:
        sys.exit(code)


def local_platform() -> str:
    """The platform of this machine: tpu, cuda or cpu."""
    if any(Path("/dev").glob("accel*")) or any(
        path.name.isdecimal() for path in Path("/dev/vfio").glob("*")
    ):
        return "tpu"
    smi = shutil.which("nvidia-smi")
    return (
        "cuda"
        if smi and subprocess.run([smi], capture_output=True, check=False).returncode == 0
        else "cpu"
    )


def _show(job: Job) -> None:
    for process in range(job.processes):
        variables = worker.launcher_environment(job) | process_variables(
            process, job.processes, "127.0.0.1:PORT"
        )
        words = [*(f"{name}={value}" for name, value in variables.items()), *worker.command(job)]
        print(f"here, process {process}$ {shlex.join(words)}")


def act(request: Request, _shell: Shell, action: str, follow: bool) -> int:
    """Status, logs or stop."""
    workdir = Path(folder_of(request)).absolute()
    if action == "logs":
        return status.logs(workdir, follow=follow)
    return status.ACTIONS[action](workdir)
