"""`--check`: finds errors before anything costs money."""

import subprocess

from e5jax.errors import ConfigError
from launch.launcher.accelerators import topology_of
from launch.launcher.request import Request
from launch.launcher.targets.local import local_platform, python_of, set_up, setup_step


def check(request: Request) -> int:
    """Validates the configuration and compiles the step for the machine; returns 0 if it fits."""
    python = python_of(request)
    if not request.python:
        set_up(setup_step(request.extras, "cpu"))
    overrides = [word for word in request.words if word.startswith(("--config.", "--noconfig."))]
    if request.stage == "synth":
        words = [*request.words, "--dry-run"]
    elif request.stage == "run":
        words = ["plan", f"--config={request.config}", *_machine(request), *overrides]
    else:
        raise ConfigError(
            "--check: an evaluation has nothing to compile; see e5jax eval --help for its options"
        )
    return subprocess.run([python, "-m", "e5jax", *words], check=False).returncode


def _machine(request: Request) -> list[str]:
    """Options of `e5jax plan`."""
    slices = [f"--slices={request.slices}"] if request.slices > 1 else []
    if request.topology:
        return [f"--topology={request.topology}", *slices]
    if request.accelerator:
        return [f"--topology={topology_of(request.accelerator)}", *slices]
    if (request.platform or local_platform()) == "cpu":
        return [f"--topology=cpu:{max(1, request.num_processes) * max(1, request.devices)}"]
    raise ConfigError(
        "--check: needs a machine; add --topology=v5e:4x4 or --accelerator=v5litepod-16"
    )
