"""TPU machines of Google's cloud, alone or queued for: made when they are not there, and made anew when they were taken away."""

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
from launch.launcher.jobs import check_bucket, job_of, outside
from launch.launcher.keys import read_keys
from launch.launcher.request import Request
from launch.launcher.shell import Reply, Shell, Step, failure
from launch.launcher.supervisor import say
from launch.launcher.targets import fleet

POLL = 30.0  # seconds between two looks at a machine
ABSENT = re.compile(r"NOT_FOUND|not found|does not exist", re.IGNORECASE)


class Resource(NamedTuple):
    """How gcloud calls one kind of machine, and the states it can be in; all others are on the way to one of these."""

    noun: str
    state: str  # the field that has it
    ready: str
    gone: tuple[str, ...]
    create: Callable[[Request], Sequence[str]]
    every: tuple[str, ...]  # words that mean all of its hosts
    delete: tuple[str, ...] = ()


def start(resource: Resource, request: Request, shell: Shell) -> int:
    """Makes the machine if it is not there, brings everything, and begins; a spot one is watched, and made anew to the end."""
    if not request.accelerator or not request.zone:
        raise ConfigError(
            f"--target={request.target}: add --accelerator, such as v5litepod-16, and --zone, such as us-west4-a"
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
    """The command."""
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
    """Of the machine; empty when there is none."""
    step = Step(
        "here",
        gcloud(resource, request, "describe", request.machine, f"--format=value({resource.state})"),
    )
    reply = shell.call(step)
    if reply.code and not ABSENT.search(reply.err):
        raise RunError(failure(step, reply))
    return "" if reply.code else reply.out.strip()


def obtain(resource: Resource, request: Request, shell: Shell) -> None:
    """Returns once the machine is there."""
    made = False
    while (now := state(resource, request, shell)) != resource.ready:
        if made and now == "FAILED":
            words = shlex.join(gcloud(resource, request, "describe", request.machine))
            raise RunError(
                f"{request.machine} is FAILED: no machine came, or there is no quota; {words} says why"
            )
        if now in resource.gone:
            say(f"{request.machine} is {now}: it is deleted and made anew")
            shell.must(
                Step("here", gcloud(resource, request, "delete", request.machine, *resource.delete))
            )
            now, made = "", False
        if not now and not made:
            shell.must(
                Step(
                    "here",
                    gcloud(resource, request, "create", request.machine, *resource.create(request)),
                )
            )
            made = True
            if shell.dry:
                return
        else:
            say(f"{request.machine} is {now or 'not there yet'}")
            time.sleep(POLL)


def begin(resource: Resource, request: Request, shell: Shell) -> None:
    """Brings code, environment and keys to all hosts, compares versions, and begins on all or on none."""
    root, commit = request.root, request.commit
    tar, keys = f"e5jax-{commit[: staging.SHORT]}.tar", fleet.keys_path(request)

    def copy(source: Path, target: str) -> Step:
        return Step(
            "here",
            gcloud(
                resource,
                request,
                "scp",
                str(source),
                f"{request.machine}:{target}",
                *resource.every,
            ),
        )

    with tempfile.TemporaryDirectory() as folder:
        shell.must(copy(Path(tar) if shell.dry else staging.archive(commit, Path(folder)), tar))
    shell.must(on_hosts(resource, request, staging.receive(root, commit, tar)))
    if request.key_file:
        shell.must(
            on_hosts(
                resource,
                request,
                f"umask 077; mkdir -p $(dirname {shlex.quote(keys)}); : >{shlex.quote(keys)}",
            )
        )  # whose mode stays
        shell.must(copy(Path(request.key_file), keys))
    if not request.python:
        shell.must(on_hosts(resource, request, fleet.setup(request, commit)))
    fleet.compare(
        {
            request.machine: shell.must(
                on_hosts(resource, request, fleet.host_command(request, commit, "versions"))
            )
        }
    )
    where = {"rank": "tpu", "key_file": fleet.keys_file(request)}
    job = job_of(request, request.python or fleet.VENV, outside(request), **where)
    step = on_hosts(resource, request, fleet.begin(request, commit, job))
    reply = shell.call(step)
    if reply.code:
        shell.call(on_hosts(resource, request, fleet.ask(request, commit, "stop")))
        raise RunError(f"{failure(step, reply)}; what had begun on other hosts was stopped again")
    print(reply.out, end="", flush=True)


def watch(resource: Resource, request: Request, shell: Shell) -> int | None:
    """Waits until the run has ended, and returns its exit code; None when the machine was taken away before."""
    say(
        f"{request.machine} may be taken away: this watches, and makes it anew; the same command does so again"
    )
    while True:
        if state(resource, request, shell) != resource.ready:
            return None
        code = ended(
            shell.call(on_hosts(resource, request, fleet.ask(request, request.commit, "status")))
        )
        if code is not None:
            return code
        time.sleep(POLL)


def ended(reply: Reply) -> int | None:
    """The exit code of a run, if it has ended on every host that answers."""
    codes = [int(code) for code in re.findall(r"ended, exit code (\d+)", reply.out)]
    return max(codes) if codes and not re.search(r": pid \d", reply.out) else None


def act(resource: Resource, request: Request, shell: Shell, action: str, follow: bool) -> int:
    """Status, logs or stop on all hosts. What `stop` leaves is the machine, which still costs money: how to delete it is said."""
    code = shell.stream(
        on_hosts(resource, request, fleet.ask(request, request.commit, action, follow))
    )
    if action == "stop":
        words = " ".join(gcloud(resource, request, "delete", request.machine, *resource.delete))
        print(f"the machine is still there, and paid for: {words}", flush=True)
    return code
