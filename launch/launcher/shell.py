"""Runs or prints the commands of a launch (`ssh`, `gcloud`, …); no shell reads them."""

import re
import shlex
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from e5jax.errors import ConfigError, RunError

TOOLS = {
    "gcloud": "the Google Cloud CLI: https://cloud.google.com/sdk/docs/install",
    "kubectl": "the Kubernetes CLI: gcloud components install kubectl",
    "xpk": "XPK: pip install xpk",
    "sky": "SkyPilot: pip install 'skypilot[gcp]'",
    "ssh": "an SSH client: apt install openssh-client",
    "sbatch": "Slurm's commands, or a machine that has them: log in to the cluster first",
    "mpirun": "Open MPI: apt install openmpi-bin",
    "docker": "Docker: https://docs.docker.com/engine/install",
    "git": "git: apt install git",
}
# (pattern of a tool's error, what to do); the first match counts.
CAUSES = (
    (
        r"quota|RESOURCE_EXHAUSTED",
        "no quota: request some (console, Quotas), or choose another --zone",
    ),
    (
        r"no more capacity|stockout|POOL_EXHAUSTED",
        "the zone has no capacity: --target=queued waits for some; or choose another --zone",
    ),
    (
        r"gcloud auth|not currently have an active account|Reauthentication|credentials",
        "not logged in: gcloud auth login",
    ),
    (
        r"PERMISSION_DENIED|not have permission|Forbidden",
        "this account lacks permission: request roles/tpu.admin, or add --project",
    ),
    (
        r"no matches for kind \"?JobSet",
        "the cluster lacks JobSet: https://jobset.sigs.k8s.io/docs/installation",
    ),
    (r"Host key verification failed", "unknown host key: ssh to it once, or add --ssh-config"),
    (r"Permission denied \(", "login refused: ssh-copy-id to the host, or add --ssh-config"),
    (
        r"Could not resolve|Connection (refused|timed out)|No route|unreachable",
        "cannot reach the host: check its name and the network",
    ),
    (r"[Ii]nvalid partition", "Slurm has no such --partition: sinfo lists them"),
    (
        r"bucket.*(not exist|not found)|404",
        "no such bucket: gcloud storage buckets create gs://NAME",
    ),
)


class Step(NamedTuple):
    """A command, the host it is for, and the text or file that it reads."""

    host: str
    argv: tuple[str, ...]
    stdin: str | Path | None = None


class Reply(NamedTuple):
    """Exit code and output of a command."""

    code: int
    out: str
    err: str


class Shell:
    """Runs steps, or with `dry` only prints them."""

    def __init__(self, dry: bool = False):
        self.dry = dry

    def call(self, step: Step, assume: str = "") -> Reply:
        """Runs a step; a dry one returns the output `assume`."""
        if self.dry:
            self._show(step)
            return Reply(0, assume, "")
        need(step.argv[0])
        text = step.stdin.encode() if isinstance(step.stdin, str) else None
        with (
            step.stdin.open("rb")
            if isinstance(step.stdin, Path)
            else open("/dev/null", "rb") as file
        ):
            source = {"input": text} if text is not None else {"stdin": file}
            result = subprocess.run(step.argv, capture_output=True, check=False, **source)  # type: ignore[call-overload]
        return Reply(
            result.returncode,
            result.stdout.decode(errors="replace"),
            result.stderr.decode(errors="replace"),
        )

    def must(self, step: Step, assume: str = "") -> str:
        """The standard output of a step. Raises RunError with cause and fix if it fails."""
        reply = self.call(step, assume)
        if reply.code:
            raise RunError(failure(step, reply))
        return reply.out

    def each(self, steps: Sequence[Step], assume: str = "") -> Mapping[str, Reply]:
        """Runs all steps in parallel; returns the reply of each host."""
        if self.dry:
            return {step.host: self.call(step, assume) for step in steps}
        with ThreadPoolExecutor(max(1, len(steps))) as pool:
            return dict(zip([step.host for step in steps], pool.map(self.call, steps), strict=True))

    def all(self, steps: Sequence[Step], assume: str = "") -> Mapping[str, str]:
        """The output of each host. Raises RunError that names every host whose step failed."""
        replies = self.each(steps, assume)
        if failures := [
            failure(step, replies[step.host]) for step in steps if replies[step.host].code
        ]:
            raise RunError("; ".join(failures))
        return {host: reply.out for host, reply in replies.items()}

    def stream(self, step: Step) -> int:
        """Runs a step that inherits standard output and error; returns its exit code."""
        if self.dry:
            self._show(step)
            return 0
        need(step.argv[0])
        return subprocess.run(step.argv, check=False).returncode

    def _show(self, step: Step) -> None:
        source = (
            f" < {step.stdin}" if isinstance(step.stdin, Path) else " <<'END'" if step.stdin else ""
        )
        print(f"{step.host}$ {shlex.join(step.argv)}{source}")
        if isinstance(step.stdin, str):
            print(f"{step.stdin.rstrip()}\nEND")


def need(tool: str) -> None:
    """Raises ConfigError if a tool is not installed."""
    if shutil.which(tool) is None:
        raise ConfigError(f"{tool} is not on PATH; install {TOOLS.get(tool, tool)}")


def failure(step: Step, reply: Reply) -> str:
    """One line with the host, the command, its last message, and the fix if it is known."""
    lines = [line.strip() for line in (reply.err or reply.out).splitlines() if line.strip()]
    text = reply.err + reply.out
    fixes = (fix for pattern, fix in CAUSES if re.search(pattern, text, re.IGNORECASE))
    fix = next((f"; {fix}" for fix in fixes), "")
    command = " ".join(step.argv[:4]) if step.argv[0] != "ssh" else "ssh"
    message = lines[-1].removeprefix("ERROR: ")[:300] if lines else "no output"
    return f"{step.host}: {command}: exit code {reply.code}: {message}{fix}"
