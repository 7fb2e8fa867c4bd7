"""TPU machines of Google Cloud: created if missing, recreated after preemption."""

import re
import shlex
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from e5jax.errors import DONE, ConfigError, RunError
from launch.launcher import staging
from launch.launcher.accelerators import slice_of
from launch.launcher.job import check_bucket, job_of, outside
from launch.launcher.keys import read_keys
from launch.launcher.request import Request
from launch.launcher.shell import Reply, Shell, Step, failure
from launch.launcher.supervisor import say
from launch.launcher.targets import fleet

POLL_INTERVAL = 30.0  # seconds
ABSENT = re.compile(r"NOT_FOUND|not found|does not exist", re.IGNORECASE)


class Resource(NamedTuple):
    """gcloud's words for one kind of machine, and its final states; all others are transient."""

    noun: str
    state: str  # field of `describe` with the state
    ready: str
    gone: tuple[str, ...]  # states after which it is deleted and recreated
    create: Callable[[Request], Sequence[str]]  # options of `create`
    every: tuple[str, ...]  # options for all of its hosts
    delete: tuple[str, ...] = ()  # options of `delete`


def start(resource: Resource, request: Request, shell: Shell) -> int:
    """Creates the machine if needed and starts the run; watches and recreates a spot machine."""
    if not request.accelerator or not request.zone:
        raise ConfigError(
            f"--target={request.target}: add --accelerator, such as v5litepod-16, and --zone, "
            "such as us-west4-a"
        )
    slice_of(request.accelerator)
    if request.key_file:
        read_keys(Path(request.key_file))
    check_bucket(request, shell)
    while True:
        obtain(resource, request, shell)
        begin(resource, request, shell)
        if shell.dry or not request.spot:
            return DONE
        code = watch(resource, request, shell)
        if code is not None:
            return code


def gcloud(resource: Resource, request: Request, verb: str, *words: str) -> tuple[str, ...]:
    """A gcloud command for the machine."""
    project = (f"--project={request.project}",) if request.project else ()
    return (
        "gcloud",
        "compute",
        "tpus",
        resource.noun,
        verb,
        *words,
        f"--zone={request.zone}",
        *project,
        "--quiet",
    )


def on_hosts(resource: Resource, request: Request, command: str) -> Step:
    """Runs a shell command on all hosts of the machine."""
    words = gcloud(
        resource, request, "ssh", request.machine, *resource.every, f"--command={command}"
    )
    return Step(request.machine, words)


def state(resource: Resource, request: Request, shell: Shell) -> str:
    """State of the machine; empty if there is none."""
    step = Step(
        "here",
        gcloud(resource, request, "describe", request.machine, f"--format=value({resource.state})"),
    )
    reply = shell.call(step)
    if reply.code and not ABSENT.search(reply.err):
        raise RunError(failure(step, reply))
    return "" if reply.code else reply.out.strip()


def obtain(resource: Resource, request: Request, shell: Shell) -> None:
    """Creates the machine if needed and waits until it is ready."""

    def run(verb: str, *options: str) -> None:
        shell.must(Step("here", gcloud(resource, request, verb, request.machine, *options)))

    created = False
    while (current := state(resource, request, shell)) != resource.ready:
        if created and current == "FAILED":
            words = shlex.join(gcloud(resource, request, "describe", request.machine))
            raise RunError(f"{request.machine} is FAILED: no capacity or quota; see {words}")
        if current in resource.gone:
            say(f"{request.machine} is {current}: deletes and recreates it")
            run("delete", *resource.delete)
            current, created = "", False
        if not current and not created:
            run("create", *resource.create(request))
            created = True
            if shell.dry:
                return
        else:
            say(f"{request.machine} is {current or 'not ready yet'}")
            time.sleep(POLL_INTERVAL)


def begin(resource: Resource, request: Request, shell: Shell) -> None:
    """Copies code and keys to all hosts, compares versions, and starts on all or none."""
    root, commit = request.root, request.commit
    tar, keys = f"e5jax-{commit[: staging.SHORT]}.tar", fleet.keys_path(request)

    def copy(source: Path, target: str) -> Step:
        words = (str(source), f"{request.machine}:{target}", *resource.every)
        return Step("here", gcloud(resource, request, "scp", *words))

    def everywhere(command: str) -> Step:
        return on_hosts(resource, request, command)

    with tempfile.TemporaryDirectory() as folder:
        shell.must(copy(Path(tar) if shell.dry else staging.archive(commit, Path(folder)), tar))
    shell.must(everywhere(staging.receive(root, commit, tar)))
    if request.key_file:
        # scp keeps the mode of an existing file.
        quoted = shlex.quote(keys)
        shell.must(everywhere(f"umask 077; mkdir -p $(dirname {quoted}); : >{quoted}"))
        shell.must(copy(Path(request.key_file), keys))
    if not request.python:
        shell.must(everywhere(fleet.setup(request, commit)))
    versions = shell.must(everywhere(fleet.host_command(request, commit, "versions")))
    fleet.compare({request.machine: versions})
    processes = {"rank": "tpu", "key_file": fleet.keys_file(request)}
    job = job_of(request, request.python or fleet.VENV, outside(request), **processes)
    step = everywhere(fleet.begin(request, commit, job))
    reply = shell.call(step)
    if reply.code:
        shell.call(everywhere(fleet.act(request, commit, "stop")))
        raise RunError(f"{failure(step, reply)}; the processes on other hosts were stopped")
    print(reply.out, end="", flush=True)


def watch(resource: Resource, request: Request, shell: Shell) -> int | None:
    """Waits for the end of the run and returns its exit code, or None if it was preempted."""
    say(
        f"{request.machine} is preemptible: watches it and recreates it after preemption; "
        "if this command ends, start it again"
    )
    while True:
        if state(resource, request, shell) != resource.ready:
            return None
        code = ended(
            shell.call(on_hosts(resource, request, fleet.act(request, request.commit, "status")))
        )
        if code is not None:
            return code
        time.sleep(POLL_INTERVAL)


def ended(reply: Reply) -> int | None:
    """The exit code of a run if it has ended on every host that replied, else None."""
    codes = [int(code) for code in re.findall(r"ended, exit code (\d+)", reply.out)]
    return max(codes) if codes and not re.search(r": pid \d", reply.out) else None


def act(resource: Resource, request: Request, shell: Shell, action: str, follow: bool) -> int:
    """Status, logs or stop on all hosts. `stop` keeps the machine and prints how to delete it."""
    code = shell.stream(
        on_hosts(resource, request, fleet.act(request, request.commit, action, follow))
    )
    if action == "stop":
        words = " ".join(gcloud(resource, request, "delete", request.machine, *resource.delete))
        print(f"the machine still exists and costs money; delete it: {words}", flush=True)
    return code
