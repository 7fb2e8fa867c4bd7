"""What machines that one logs in to have in common: code, environment and keys are brought, versions compared, the run begun."""

import json
import shlex
from collections.abc import Mapping

from e5jax.errors import ConfigError
from launch.launcher.host import MARK
from launch.launcher.job import Job
from launch.launcher.jobs import outside
from launch.launcher.request import Request
from launch.launcher.staging import inside

VENV = ".venv/bin/python"
SHOWN = 3  # differences in a message


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
    """A shell command that begins a host's part in the background."""
    return host_command(request, commit, "detach", *job.arguments())


def ask(request: Request, commit: str, action: str, follow: bool = False) -> str:
    """A shell command for status, logs or stop."""
    return host_command(
        request, commit, action, f"--workdir={outside(request)}", *(["--follow"] if follow else [])
    )


def keys_path(request: Request) -> str:
    """Where a host keeps the keys of a run."""
    return f"{request.root.removeprefix('~/')}/keys/{request.run_name}"


def keys_file(request: Request) -> str:
    """The same, for a job that is elsewhere by then; empty when there are none."""
    path = keys_path(request)
    return "" if not request.key_file else path if path.startswith("/") else f"~/{path}"


def receive_keys(request: Request) -> str:
    """A shell command that reads keys from stdin."""
    path = shlex.quote(keys_path(request))
    return f"umask 077; mkdir -p $(dirname {path}) && cat >{path}"


def compare(said: Mapping[str, str]) -> None:
    """Raises ConfigError where hosts have not the same versions; names two of them and what is different.

    `said` is what each host, or each group of them, answered to `versions`.
    """
    found: dict[str, dict[str, str]] = {}
    for name, text in said.items():
        lines = [line.removeprefix(MARK) for line in text.splitlines() if line.startswith(MARK)]
        for number, line in enumerate(lines):
            found[name if len(lines) == 1 else f"{name} {number}"] = json.loads(line)
    if not found:
        return
    first, *others = found
    for other in others:
        names = sorted(found[first].keys() | found[other].keys())
        different = [
            name
            for name in names
            if name != "host" and found[first].get(name) != found[other].get(name)
        ]
        if different:
            words = "; ".join(
                f"{name} is {found[first].get(name)} on {_who(first, found)} and {found[other].get(name)} on {_who(other, found)}"
                for name in different[:SHOWN]
            )
            raise ConfigError(
                f"the hosts are not alike: {words}; nothing was started; let launch/setup.sh install the same on all"
            )


def _who(name: str, found: Mapping[str, Mapping[str, str]]) -> str:
    own = found[name].get("host", name)
    return name if own == name else f"{name} ({own})"
