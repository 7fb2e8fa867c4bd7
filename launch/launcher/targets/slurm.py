"""Slurm: a job with one task per process, requeued after preemption or at its time limit."""

import shlex
from pathlib import Path

from e5jax.errors import DONE, ConfigError
from launch.launcher import staging, status
from launch.launcher.job import folder_of, job_of
from launch.launcher.keys import read_keys
from launch.launcher.request import Request
from launch.launcher.shell import Shell, Step, need
from launch.launcher.targets import fleet

# Each task may use all CPUs of its node. Tasks end by themselves when one does, so that each
# reports its own exit code.
SRUN = ("srun", "--kill-on-bad-exit=0", "--wait=180", "--cpu-bind=none")


def start(request: Request, shell: Shell) -> int:
    """Stages the code in a folder that all nodes share and submits the job."""
    if not shell.dry:
        need("sbatch")
    if request.key_file:
        read_keys(Path(request.key_file))
    queued = jobs(request, shell)
    if queued:
        raise ConfigError(
            f"--run-name={request.run_name}: job {queued[0]} has this name; stop it or wait"
        )
    code = staging.here(request, shell)
    if not request.python:
        shell.must(
            Step("here", (str(code / "launch/setup.sh"), "--locked", request.platform or "cpu"))
        )
    if not shell.dry:
        Path(output(request)).parent.mkdir(parents=True, exist_ok=True)  # Slurm does not
    number = shell.must(Step("here", sbatch(request), script(request, code)), assume="JOB").strip()
    if not shell.dry:
        print(f"{request.run_name}: job {number}, output {output(request)}", flush=True)
    return DONE


def sbatch(request: Request) -> tuple[str, ...]:
    """The command that submits a script from standard input, with all options."""
    tasks = request.num_processes or request.nodes or 1
    words = {
        "job-name": request.run_name,
        "nodes": str(request.nodes or tasks),
        "ntasks": str(tasks),
        "partition": request.partition,
        "account": request.account,
        "time": request.time,
        "gpus-per-node": str(request.gpus or ""),
        "signal": f"B:USR1@{request.notice}",
        "output": output(request),
        "open-mode": "append",
    }
    options = [f"--{name}={value}" for name, value in words.items() if value]
    return ("sbatch", "--parsable", "--requeue", *options, *request.sbatch)


def output(request: Request) -> str:
    """Path of the job's own output."""
    return str(Path(folder_of(request)).absolute() / "slurm-%j.log")


def script(request: Request, code: Path) -> str:
    """The job script: supervises `srun`, whose tasks determine their own process index."""
    python = request.python or str(code / fleet.VENV)
    keys = str(Path(request.key_file).absolute()) if request.key_file else ""
    workdir = str(Path(folder_of(request)).absolute())
    job = job_of(request, python, workdir, rank="slurm", restarts=0, key_file=keys)
    tasks = [*SRUN, python, "-m", "launch.launcher", "host", "run", *job.arguments()]
    batch = [
        python,
        "-m",
        "launch.launcher",
        "host",
        "batch",
        request.run_name,
        workdir,
        str(request.restarts),
        *tasks,
    ]
    return (
        f"#!/bin/bash\numask 077\ncd {shlex.quote(str(code))} || exit 1\nexec {shlex.join(batch)}\n"
    )


def jobs(request: Request, shell: Shell) -> list[str]:
    """Ids of the user's pending and running jobs of this name."""
    words = (
        "squeue",
        "--noheader",
        "--me",
        f"--name={request.run_name}",
        "--states=PENDING,RUNNING,SUSPENDED",
        "--format=%A",
    )
    return shell.must(Step("here", words)).split()


def act(request: Request, shell: Shell, action: str, follow: bool) -> int:
    """Status, logs or stop, by the run's name."""
    workdir = Path(folder_of(request)).absolute()
    if action == "logs":
        return status.logs(workdir, follow=follow, all_hosts=True)
    if action == "stop":
        for number in jobs(request, shell):
            shell.must(Step("here", ("scontrol", "update", f"JobId={number}", "Requeue=0")))
            shell.must(Step("here", ("scancel", "--batch", "--signal=TERM", number)))
            print(f"{request.run_name}: told job {number} to save and exit", flush=True)
        return DONE
    shell.stream(Step("here", ("squeue", "--me", f"--name={request.run_name}")))
    return status.status(workdir) if (workdir / "launch").is_dir() else DONE
