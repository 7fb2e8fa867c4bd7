"""Machines that one can log in to, by name: a process each, in the background, whatever becomes of the connection."""

import re
import tempfile
from pathlib import Path

from e5jax.errors import DONE, ConfigError, RunError
from launch.launcher import staging
from launch.launcher.jobs import job_of, outside
from launch.launcher.keys import read_keys
from launch.launcher.ranks import PORT
from launch.launcher.record import read_text
from launch.launcher.request import HOST, Request
from launch.launcher.shell import Shell, Step, failure
from launch.launcher.targets import fleet

OPTIONS = (
    "-o",
    "BatchMode=yes",
    "-o",
    "ConnectTimeout=15",
    "-o",
    "ServerAliveInterval=10",
    "-o",
    "ServerAliveCountMax=2",
)


def start(request: Request, shell: Shell) -> int:
    """Brings code, environment and keys to every host, compares versions, and begins on all of them, or on none."""
    hosts = hosts_of(request)
    if request.key_file:
        read_keys(Path(request.key_file))
    commit = request.commit
    with tempfile.TemporaryDirectory() as folder:
        tar = Path("e5jax.tar") if shell.dry else staging.archive(commit, Path(folder))
        shell.all(
            [
                Step(host, ssh(request, host, staging.receive(request.root, commit)), tar)
                for host in hosts
            ]
        )
    if request.key_file:
        shell.all(
            [
                Step(host, ssh(request, host, fleet.receive_keys(request)), Path(request.key_file))
                for host in hosts
            ]
        )
    if not request.python:
        shell.all([Step(host, ssh(request, host, fleet.setup(request, commit))) for host in hosts])
    fleet.compare(
        shell.all(
            [
                Step(host, ssh(request, host, fleet.host_command(request, commit, "versions")))
                for host in hosts
            ]
        )
    )
    _begin(request, shell, commit, hosts)
    return DONE


def _begin(request: Request, shell: Shell, commit: str, hosts: list[str]) -> None:
    first = request.coordinator or f"{hosts[0].rpartition('@')[2]}:{PORT}"
    steps = []
    for number, host in enumerate(hosts):
        where = {
            "processes": len(hosts),
            "first": number,
            "coordinator": first,
            "key_file": fleet.keys_file(request),
        }
        job = job_of(request, request.python or fleet.VENV, outside(request), **where)
        steps.append(Step(host, ssh(request, host, fleet.begin(request, commit, job))))
    replies = shell.each(steps)
    wrong = [step for step in steps if replies[step.host].code]
    if wrong:
        begun = [step.host for step in steps if step not in wrong]
        shell.each(
            [Step(host, ssh(request, host, fleet.ask(request, commit, "stop"))) for host in begun]
        )
        told = f"; stopped again: {', '.join(begun)}" if begun else ""
        raise RunError("; ".join(failure(step, replies[step.host]) for step in wrong) + told)
    for host in hosts:
        print(replies[host].out, end="", flush=True)


def hosts_of(request: Request) -> list[str]:
    """All of them, the first one first. Raises ConfigError."""
    hosts = list(request.hosts)
    if request.host_file:
        path = Path(request.host_file)
        if not path.is_file():
            raise ConfigError(f"--host-file={path}: there is no such file; write one host a line")
        hosts += [
            line.split("#")[0].strip() for line in read_text(path, "--host-file=").splitlines()
        ]
    hosts = [host for host in hosts if host]
    if not hosts:
        raise ConfigError(
            f"--target={request.target}: on which machines? add --hosts=a,b or --host-file=FILE"
        )
    for host in hosts:
        if not re.fullmatch(HOST, host, re.ASCII):
            raise ConfigError(f"--hosts: {host!r} is not the name of a host")
    if len(set(hosts)) < len(hosts):
        raise ConfigError(
            f"--hosts={','.join(hosts)}: one of them is named twice; a host has one process"
        )
    if request.num_processes not in (0, len(hosts)):
        raise ConfigError(
            f"--num-processes={request.num_processes}: there are {len(hosts)} hosts, and each has one process"
        )
    return hosts


def ssh(request: Request, host: str, command: str) -> tuple[str, ...]:
    """Logs in and runs a shell command; asks for no password, and gives up on a dead connection."""
    config = ("-F", request.ssh_config) if request.ssh_config else ()
    return ("ssh", *config, *OPTIONS, "--", host, command)


def act(request: Request, shell: Shell, action: str, follow: bool) -> int:
    """Status, logs or stop, on every host. Hosts that cannot be reached are named; the code is the worst of all."""
    commit = request.commit
    steps = [
        Step(host, ssh(request, host, fleet.ask(request, commit, action, follow)))
        for host in hosts_of(request)
    ]
    if follow:
        return shell.stream(steps[0])
    replies, codes = shell.each(steps), []
    for step in steps:
        reply = replies[step.host]
        print(reply.out, end="", flush=True)
        if reply.code:
            print(failure(step, reply), flush=True)
        codes.append(reply.code)
    return max(codes)
