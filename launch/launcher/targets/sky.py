"""SkyPilot: a managed job on any cloud with capacity, recovered after preemption."""

import os
import shlex
from pathlib import Path

from e5jax.errors import DONE, ConfigError
from launch.launcher import staging
from launch.launcher.job import BUCKET, job_of
from launch.launcher.keys import read_keys
from launch.launcher.manifests import to_yaml
from launch.launcher.request import Request
from launch.launcher.shell import Shell, Step, need
from launch.launcher.supervisor import RETRIED


def start(request: Request, shell: Shell) -> int:
    """Stages the code on this machine for sky to copy, and submits the job."""
    if not shell.dry:
        need("sky")
    if not request.accelerator:
        raise ConfigError("--target=sky: add --accelerator, such as H100:8 or tpu-v5litepod-16")
    if not request.workdir.startswith(BUCKET):
        raise ConfigError(
            f"--workdir={request.workdir}: the machines have no persistent disk; use "
            f"--workdir=gs://BUCKET/{request.run_name}"
        )
    keys = read_keys(Path(request.key_file)) if request.key_file else {}
    code = staging.here(request, shell)
    recipe = code.with_name(f"{request.run_name}.sky.yaml")
    if shell.dry:
        print(f"{recipe}:\n{to_yaml(task(request, code, sorted(keys)))}", end="")
    else:
        recipe.write_text(to_yaml(task(request, code, sorted(keys))), encoding="utf-8")
        os.environ.update(keys)  # --secret NAME reads the value from there
    secrets = [word for name in sorted(keys) for word in ("--secret", name)]
    shell.must(
        Step(
            "here",
            (
                "sky",
                "jobs",
                "launch",
                "--yes",
                "--detach-run",
                f"--name={request.run_name}",
                *secrets,
                str(recipe),
            ),
        )
    )
    return DONE


def task(request: Request, code: Path, keys: list[str]) -> dict:
    """The recipe. SkyPilot restarts the job, depending on its exit code."""
    platform = request.platform or ("tpu" if request.accelerator.startswith("tpu") else "cuda")
    job = job_of(request, ".venv/bin/python", rank="sky", platform=platform, restarts=0)
    run = shlex.join([".venv/bin/python", "-m", "launch.launcher", "host", "run", *job.arguments()])
    count = f":{request.gpus}" if request.gpus else ""
    recovery = {
        "max_restarts_on_errors": request.restarts,
        "recover_on_exit_codes": sorted(RETRIED),
    }
    recipe: dict = {
        "name": request.run_name,
        "workdir": str(code),
        "num_nodes": request.num_processes or 1,
        "resources": {
            "accelerators": f"{request.accelerator}{count}",
            "use_spot": request.spot,
            "job_recovery": recovery,
        },
        "setup": f"E5JAX_VENVS=venv launch/setup.sh --locked {platform}",
        "run": f"exec {run}",
    }
    return recipe | ({"secrets": dict.fromkeys(keys)} if keys else {})


def act(request: Request, shell: Shell, action: str, follow: bool) -> int:
    """Status, logs or stop, by the run's name."""
    words = {
        "status": ("queue",),
        "logs": ("logs", f"--name={request.run_name}", "--follow" if follow else "--no-follow"),
        "stop": ("cancel", "--yes", f"--name={request.run_name}"),
    }[action]
    return shell.stream(Step("here", ("sky", "jobs", *words)))
