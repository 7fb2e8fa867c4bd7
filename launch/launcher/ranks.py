"""Process index, process count and coordinator from Slurm, MPI, SkyPilot or a TPU's metadata.

The result are the environment variables that e5jax reads.
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
METADATA_TIMEOUT = 20  # seconds
PORTS = 4_096  # the highest ports; jobs on the same machine then rarely share one

Environment = Mapping[str, str]


def process_variables(process: int, processes: int, coordinator: str) -> dict[str, str]:
    """Environment variables of a process; none if there is only one."""
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
    return process_variables(int(rank), int(count), f"{first_node(nodes)}:{_port(int(job))}")


def first_node(nodes: str) -> str:
    """The first node of a Slurm node list: `n1`, `n1,n2` or `n[003-5,7],m1`."""
    head = re.fullmatch(r"([^,\[]+)(?:\[([^,\-\]]+).*)?(?:,.*)?", nodes)
    if head is None:
        raise ConfigError(f"SLURM_STEP_NODELIST={nodes!r}: not a list of nodes")
    return f"{head[1]}{head[2] or ''}"


def mpi(environment: Environment) -> dict[str, str]:
    """A rank of Open MPI 4 or 5; the command sets the coordinator, which version 5 hides."""
    count, rank = _all(environment, "mpi", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK")
    return process_variables(int(rank), int(count), environment.get(COORDINATOR, ""))


def sky(environment: Environment) -> dict[str, str]:
    """A node of SkyPilot."""
    rank, addresses = _all(environment, "sky", "SKYPILOT_NODE_RANK", "SKYPILOT_NODE_IPS")
    hosts = addresses.split()
    return process_variables(int(rank), len(hosts), f"{hosts[0]}:{PORT}")


def tpu(environment: Environment, metadata: Callable[[str], str] | None = None) -> dict[str, str]:
    """A host of one or more TPU slices, on a virtual machine or in Kubernetes."""
    metadata = metadata or _metadata
    variables = environment
    names = environment.get("TPU_PROCESS_ADDRESSES") or environment.get("TPU_WORKER_HOSTNAMES")
    if not names:
        attributes = re.findall(r"^(\w+): *'?(.*?)'?$", metadata("tpu-env"), re.MULTILINE)
        variables = dict(attributes) | dict(environment)
        endpoints = metadata("worker-network-endpoints").split(",")
        names = ",".join(entry.split(":")[-1] for entry in endpoints)
    hosts = [name.split(":")[0] for name in names.split(",")]
    worker = int(environment.get("TPU_WORKER_ID") or metadata("agent-worker-number"))
    slices = int(variables.get("MEGASCALE_NUM_SLICES") or 1)
    slice_id = int(variables.get("MEGASCALE_SLICE_ID") or 0)
    first = (variables.get("MEGASCALE_COORDINATOR_ADDRESS") or hosts[0]).split(":")[0]
    return process_variables(slice_id * len(hosts) + worker, slices * len(hosts), f"{first}:{PORT}")


KINDS: dict[str, Callable[[Environment], dict[str, str]]] = {
    "slurm": slurm,
    "mpi": mpi,
    "sky": sky,
    "tpu": tpu,
}


def variables_of(kind: str, environment: Environment = os.environ) -> dict[str, str]:
    """The variables that e5jax reads. Raises ConfigError if `kind` did not set its own."""
    return KINDS[kind](environment)


def _all(environment: Environment, kind: str, *names: str) -> list[str]:
    if missing := [name for name in names if not environment.get(name)]:
        raise ConfigError(
            f"--rank={kind}: {', '.join(missing)} is not set; {kind} has not started this process"
        )
    return [environment[name] for name in names]


def _port(job: int) -> int:
    return 65_536 - PORTS + job % PORTS


def _metadata(name: str) -> str:
    request = urllib.request.Request(METADATA + name, headers={"Metadata-Flavor": "Google"})  # noqa: S310
    try:
        with urllib.request.urlopen(request, timeout=METADATA_TIMEOUT) as reply:  # noqa: S310  http, always
            return reply.read().decode()
    except (urllib.error.URLError, TimeoutError) as error:
        raise ConfigError(
            f"--rank=tpu: no {name} from the metadata server ({error}); this is not a TPU VM"
        ) from error
