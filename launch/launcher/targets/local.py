"""The machine here: one process, which replaces the launcher, or several with a supervisor."""

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from e5jax.errors import ConfigError
from launch.launcher import host, look
from launch.launcher.job import Job
from launch.launcher.jobs import folder_of, job_of
from launch.launcher.ranks import given
from launch.launcher.request import Request
from launch.launcher.shell import Shell, Step

VENV = Path(".venv/bin/python")


def start(request: Request, shell: Shell) -> int:
    """Sets up what is missing and runs to the end, or with --detach begins."""
    python = python_of(request)
    platform = request.platform or found()
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
        return host.detach(job)
    if processes == 1 and not job.restarts and not job.bucket:
        host.become(job)
    return host.run(job, echo=processes > 1, logs=processes > 1)[0]


def python_of(request: Request) -> str:
    """The interpreter that the run's processes get. Raises ConfigError when it is named and not there."""
    if request.python and not os.access(request.python, os.X_OK):
        raise ConfigError(
            f"--python={request.python}: there is no such program; leave it out to have one set up"
        )
    return request.python or str(VENV)


def setup_step(extras: str, platform: str) -> Step:
    """Installs what is missing."""
    return Step(
        "here", ("launch/setup.sh", extras if platform == "cpu" else f"{extras},{platform}")
    )


def set_up(step: Step) -> None:
    """Lets the user see how it goes; its own words say what went wrong."""
    if code := subprocess.run(step.argv, check=False).returncode:
        sys.exit(code)


def found() -> str:
    """The platform of this machine."""
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
        around = host.asked(job) | given(process, job.processes, "127.0.0.1:PORT")
        words = [*(f"{name}={value}" for name, value in around.items()), *host.command(job)]
        print(f"here, process {process}$ {shlex.join(words)}")


def act(request: Request, _shell: Shell, action: str, follow: bool) -> int:
    """Status, logs or stop."""
    workdir = Path(folder_of(request)).absolute()
    return look.logs(workdir, follow=follow) if action == "logs" else look.ACTIONS[action](workdir)
