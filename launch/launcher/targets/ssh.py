"""Machines with an SSH login: one process each, which outlives the connection."""

import re
import tempfile
from pathlib import Path

from e5jax.errors import DONE, ConfigError, RunError
from launch.launcher import staging
from launch.launcher.job import job_of, outside
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
    """Copies code and keys to all hosts, compares versions, and starts on all or none."""
    hosts, commit = hosts_of(request), request.commit

    def everywhere(command: str, stdin: Path | None = None) -> list[Step]:
        return [Step(host, ssh(request, host, command), stdin) for host in hosts]

    if request.key_file:
        read_keys(Path(request.key_file))
    with tempfile.TemporaryDirectory() as folder:
        tar = Path("e5jax.tar") if shell.dry else staging.archive(commit, Path(folder))
        shell.all(everywhere(staging.receive(request.root, commit), tar))
    if request.key_file:
        shell.all(everywhere(fleet.receive_keys(request), Path(request.key_file)))
    if not request.python:
        shell.all(everywhere(fleet.setup(request, commit)))
    fleet.compare(shell.all(everywhere(fleet.host_command(request, commit, "versions"))))
    _begin(request, shell, commit, hosts)
    return DONE


def _begin(request: Request, shell: Shell, commit: str, hosts: list[str]) -> None:
    first = request.coordinator or f"{hosts[0].rpartition('@')[2]}:{PORT}"
    steps = []
    for number, host in enumerate(hosts):
        processes = {
            "processes": len(hosts),
            "first": number,
            "coordinator": first,
            "key_file": fleet.keys_file(request),
        }
        job = job_of(request, request.python or fleet.VENV, outside(request), **processes)
        steps.append(Step(host, ssh(request, host, fleet.begin(request, commit, job))))
    replies = shell.each(steps)
    failed = [step for step in steps if replies[step.host].code]
    if failed:
        started = [step.host for step in steps if step not in failed]
        stop = fleet.act(request, commit, "stop")
        shell.each([Step(host, ssh(request, host, stop)) for host in started])
        failures = [failure(step, replies[step.host]) for step in failed]
        if started:
            failures.append(f"stopped on {', '.join(started)}")
        raise RunError("; ".join(failures))
    for host in hosts:
        print(replies[host].out, end="", flush=True)


def hosts_of(request: Request) -> list[str]:
    """Hosts of --hosts and --host-file, the coordinator first. Raises ConfigError."""
    hosts = list(request.hosts)
    if request.host_file:
        path = Path(request.host_file)
        if not path.is_file():
            raise ConfigError(f"--host-file={path}: no such file; write one host per line")
        hosts += [
            line.split("#")[0].strip() for line in read_text(path, "--host-file=").splitlines()
        ]
    hosts = [host for host in hosts if host]
    if not hosts:
        raise ConfigError(
            f"--target={request.target}: needs hosts; add --hosts=a,b or --host-file=FILE"
        )
    for host in hosts:
        if not re.fullmatch(HOST, host, re.ASCII):
            raise ConfigError(f"--hosts: {host!r} is not the name of a host")
    if len(set(hosts)) < len(hosts):
        raise ConfigError(
            f"--hosts={','.join(hosts)}: one is listed twice, but a host has one process"
        )
    if request.num_processes not in (0, len(hosts)):
        raise ConfigError(
            f"--num-processes={request.num_processes}: must be {len(hosts)}, one per host"
        )
    return hosts


def ssh(request: Request, host: str, command: str) -> tuple[str, ...]:
    """An ssh command without a password prompt that gives up on a dead connection."""
    config = ("-F", request.ssh_config) if request.ssh_config else ()
    return ("ssh", *config, *OPTIONS, "--", host, command)


def act(request: Request, shell: Shell, action: str, follow: bool) -> int:
    """Status, logs or stop on every host; names unreachable ones; returns the highest exit code."""
    commit = request.commit
    steps = [
        Step(host, ssh(request, host, fleet.act(request, commit, action, follow)))
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
