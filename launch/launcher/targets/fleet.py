"""Shell commands for machines with a login: install, copy keys, compare versions, start a run."""

import json
import shlex
from collections.abc import Mapping

from e5jax.errors import ConfigError
from launch.launcher.job import Job, outside
from launch.launcher.request import Request
from launch.launcher.staging import inside
from launch.launcher.worker import VERSIONS_PREFIX

VENV = ".venv/bin/python"
SHOWN = 3  # differences in an error message


def setup(request: Request, commit: str) -> str:
    """A shell command that installs the locked environment of the platform, once."""
    return inside(request.root, commit, "launch/setup.sh", "--locked", request.platform or "cpu")


def host_command(request: Request, commit: str, action: str, *words: str) -> str:
    """A shell command for `python -m launch.launcher host ACTION …` in the staged code."""
    return inside(
        request.root,
        commit,
        request.python or VENV,
        "-m",
        "launch.launcher",
        "host",
        action,
        *words,
    )


def begin(request: Request, commit: str, job: Job) -> str:
    """A shell command that starts a host's part in the background."""
    return host_command(request, commit, "detach", *job.arguments())


def act(request: Request, commit: str, action: str, follow: bool = False) -> str:
    """A shell command for status, logs or stop."""
    return host_command(
        request, commit, action, f"--workdir={outside(request)}", *(["--follow"] if follow else [])
    )


def keys_path(request: Request) -> str:
    """Path of a run's keys on a host."""
    return f"{request.root.removeprefix('~/')}/keys/{request.run_name}"


def keys_file(request: Request) -> str:
    """The same as an absolute or `~/` path; empty without keys."""
    path = keys_path(request)
    return "" if not request.key_file else path if path.startswith("/") else f"~/{path}"


def receive_keys(request: Request) -> str:
    """A shell command that writes the keys from standard input."""
    path = shlex.quote(keys_path(request))
    return f"umask 077; mkdir -p $(dirname {path}) && cat >{path}"


def compare(outputs: Mapping[str, str]) -> None:
    """Raises ConfigError that names two hosts if their versions differ.

    Args:
        outputs: output of `versions` by host, or by machine, whose hosts print one line each.

    """
    hosts: dict[str, dict[str, str]] = {}
    for name, text in outputs.items():
        lines = [line for line in text.splitlines() if line.startswith(VERSIONS_PREFIX)]
        for number, line in enumerate(lines):
            versions = json.loads(line.removeprefix(VERSIONS_PREFIX))
            hosts[name if len(lines) == 1 else f"{name} {number}"] = versions
    first, *others = hosts or [""]
    for other in others:
        one, two = hosts[first], hosts[other]
        names = sorted(name for name in one.keys() | two.keys() if name != "host")
        different = [name for name in names if one.get(name) != two.get(name)]
        if different:
            details = "; ".join(
                f"{name} is {one.get(name)} on {_label(first, one)} "
                f"and {two.get(name)} on {_label(other, two)}"
                for name in different[:SHOWN]
            )
            raise ConfigError(
                f"the hosts have different versions: {details}; nothing was started; "
                "install the same on all with launch/setup.sh"
            )


def _label(name: str, versions: Mapping[str, str]) -> str:
    host = versions.get("host", name)
    return name if host == name else f"{name} ({host})"
