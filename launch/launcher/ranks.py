"""Which process of the run this is, as Slurm, MPI, SkyPilot or a TPU's metadata server say it; in the words that e5jax reads.

Jobs that the launcher starts itself are told at once, by `given`.
"""

import os
import re
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping

from e5jax.distributed.process import COORDINATOR, PROCESS, PROCESSES
from e5jax.errors import ConfigError

PORT = 8476
METADATA = "http://metadata.google.internal/computeMetadata/v1/instance/attributes/"
SECONDS = 20  # that the metadata server may take
PORTS = 4_096  # to choose from, the last ones there are; jobs on the same machine then hardly meet

Environment = Mapping[str, str]


def given(process: int, processes: int, coordinator: str) -> dict[str, str]:
    """A process on its own needs to be told nothing."""
    return (
        {}
        if processes == 1
        else {COORDINATOR: coordinator, PROCESSES: str(processes), PROCESS: str(process)}
    )


def slurm(environment: Environment) -> dict[str, str]:
    """A task of `srun`."""
    job, count, rank, nodes = _all(
        environment, "slurm", "SLURM_JOB_ID", "SLURM_NTASKS", "SLURM_PROCID", "SLURM_STEP_NODELIST"
    )
    return given(int(rank), int(count), f"{first_node(nodes)}:{_port(int(job))}")


def first_node(nodes: str) -> str:
    """Of a list as Slurm writes it: `n1`, `n1,n2`, `n[003-5,7],m1`."""
    head = re.fullmatch(r"([^,\[]+)(?:\[([^,\-\]]+).*)?(?:,.*)?", nodes)
    if head is None:
        raise ConfigError(f"SLURM_STEP_NODELIST={nodes!r}: not a list of nodes")
    return f"{head[1]}{head[2] or ''}"


def mpi(environment: Environment) -> dict[str, str]:
    """A rank of Open MPI, 4 or 5; the address comes with the command, as version 5 says nowhere who is first."""
    count, rank = _all(environment, "mpi", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK")
    return given(int(rank), int(count), environment.get(COORDINATOR, ""))


def sky(environment: Environment) -> dict[str, str]:
    """A node of SkyPilot."""
    rank, addresses = _all(environment, "sky", "SKYPILOT_NODE_RANK", "SKYPILOT_NODE_IPS")
    hosts = addresses.split()
    return given(int(rank), len(hosts), f"{hosts[0]}:{PORT}")


def tpu(environment: Environment, ask: Callable[[str], str] | None = None) -> dict[str, str]:
    """A host of one or more TPU slices, on a virtual machine or in Kubernetes."""
    ask = ask or _metadata
    said = environment
    names = environment.get("TPU_PROCESS_ADDRESSES") or environment.get("TPU_WORKER_HOSTNAMES")
    if not names:
        said = dict(re.findall(r"^(\w+): *'?(.*?)'?$", ask("tpu-env"), re.MULTILINE)) | dict(
            environment
        )
        names = ",".join(
            entry.split(":")[-1] for entry in ask("worker-network-endpoints").split(",")
        )
    hosts = [name.split(":")[0] for name in names.split(",")]
    inside = int(environment.get("TPU_WORKER_ID") or ask("agent-worker-number"))
    slices, this = (
        int(said.get("MEGASCALE_NUM_SLICES") or 1),
        int(said.get("MEGASCALE_SLICE_ID") or 0),
    )
    first = (said.get("MEGASCALE_COORDINATOR_ADDRESS") or hosts[0]).split(":")[0]
    return given(this * len(hosts) + inside, slices * len(hosts), f"{first}:{PORT}")


KINDS: dict[str, Callable[[Environment], dict[str, str]]] = {
    "slurm": slurm,
    "mpi": mpi,
    "sky": sky,
    "tpu": tpu,
}


def place_of(kind: str, environment: Environment = os.environ) -> dict[str, str]:
    """What e5jax is to be told. Raises ConfigError when the environment is not of that kind."""
    return KINDS[kind](environment)


def _all(environment: Environment, kind: str, *names: str) -> list[str]:
    if missing := [name for name in names if not environment.get(name)]:
        raise ConfigError(
            f"--rank={kind}: {', '.join(missing)} is not set; this is not a process that {kind} has started"
        )
    return [environment[name] for name in names]


def _port(job: int) -> int:
    return 65_536 - PORTS + job % PORTS


def _metadata(name: str) -> str:
    request = urllib.request.Request(METADATA + name, headers={"Metadata-Flavor": "Google"})  # noqa: S310
    try:
        with urllib.request.urlopen(request, timeout=SECONDS) as reply:  # noqa: S310  http, always
            return reply.read().decode()
    except (urllib.error.URLError, TimeoutError) as error:
        raise ConfigError(
            f"--rank=tpu: the metadata server says nothing of {name} ({error}); this is not a TPU VM"
        ) from error
