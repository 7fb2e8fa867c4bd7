"""Runs the commands of a launch (`ssh`, `gcloud`, `kubectl`, …), or prints them. Arguments are arrays, no shell reads them."""

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
# What a tool says when something is missing, and what to do; the first that fits.
CAUSES = (
    (r"quota|RESOURCE_EXHAUSTED", "no quota: ask for some (console, Quotas), or take another --zone"),
    (r"no more capacity|stockout|POOL_EXHAUSTED", "the zone has none left: --target=queued waits for one; or take another --zone"),
    (r"gcloud auth|not currently have an active account|Reauthentication|credentials", "there is no login: gcloud auth login"),
    (r"PERMISSION_DENIED|not have permission|Forbidden", "this account may not: ask for roles/tpu.admin, or name --project"),
    (r"no matches for kind \"?JobSet", "the cluster knows no JobSet: https://jobset.sigs.k8s.io/docs/installation"),
    (r"Host key verification failed", "the host is not known: ssh to it once, or name --ssh-config"),
    (r"Permission denied \(", "the host does not let you in: ssh-copy-id to it, or name --ssh-config"),
    (r"Could not resolve|Connection (refused|timed out)|No route|unreachable", "it cannot be reached: look at name and network"),
    (r"[Ii]nvalid partition", "Slurm has no such --partition: sinfo lists them"),
    (r"bucket.*(not exist|not found)|404", "there is no such bucket: gcloud storage buckets create gs://NAME"),
)  # fmt: skip


class Step(NamedTuple):
    """A command, for which host it is, and the text or file that it reads."""

    host: str
    argv: tuple[str, ...]
    stdin: str | Path | None = None


class Reply(NamedTuple):
    """What a command said."""

    code: int
    out: str
    err: str


class Shell:
    """Runs steps; with `dry` prints them, and nothing happens."""

    def __init__(self, dry: bool = False):
        self.dry = dry

    def call(self, step: Step, assume: str = "") -> Reply:
        """What a step says; a dry one is taken to say `assume`."""
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
            done = subprocess.run(step.argv, capture_output=True, check=False, **source)  # type: ignore[call-overload]
        return Reply(
            done.returncode,
            done.stdout.decode(errors="replace"),
            done.stderr.decode(errors="replace"),
        )

    def must(self, step: Step, assume: str = "") -> str:
        """What a step says on stdout. Raises RunError when it fails, with the cause and the fix."""
        reply = self.call(step, assume)
        if reply.code:
            raise RunError(failure(step, reply))
        return reply.out

    def each(self, steps: Sequence[Step], assume: str = "") -> Mapping[str, Reply]:
        """All of them at once; what each host says."""
        if self.dry:
            return {step.host: self.call(step, assume) for step in steps}
        with ThreadPoolExecutor(max(1, len(steps))) as pool:
            return dict(zip([step.host for step in steps], pool.map(self.call, steps), strict=True))

    def all(self, steps: Sequence[Step], assume: str = "") -> Mapping[str, str]:
        """The same, and every one must come off. Raises RunError naming the hosts where it does not."""
        replies = self.each(steps, assume)
        if wrong := [
            failure(step, replies[step.host]) for step in steps if replies[step.host].code
        ]:
            raise RunError("; ".join(wrong))
        return {host: reply.out for host, reply in replies.items()}

    def stream(self, step: Step) -> int:
        """Runs a step whose words go where this process's go. Returns its exit code."""
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
    """Raises ConfigError when a tool is not there."""
    if shutil.which(tool) is None:
        raise ConfigError(f"{tool} is not on PATH; this needs {TOOLS.get(tool, tool)}")


def failure(step: Step, reply: Reply) -> str:
    """One line: which host, which command, what it said, and the fix where it is known."""
    said = [line.strip() for line in (reply.err or reply.out).splitlines() if line.strip()]
    fix = next(
        (
            fix
            for pattern, fix in CAUSES
            if re.search(pattern, reply.err + reply.out, re.IGNORECASE)
        ),
        "",
    )
    words = " ".join(step.argv[:4]) if step.argv[0] != "ssh" else "ssh"
    last = said[-1].removeprefix("ERROR: ") if said else "nothing"
    return f"{step.host}: {words}: exit code {reply.code}: {last[:300]}" + (
        f"; {fix}" if fix else ""
    )
