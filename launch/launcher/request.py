"""Every option of the launcher with its check; a value that passes may stand in any command."""

import dataclasses
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from e5jax.errors import ConfigError
from launch.launcher.profiles import PLATFORMS, check_profile

TARGETS = ("local", "ssh", "tpu-vm", "queued", "gke", "slurm", "mpi", "sky")
CLOUD = ("tpu-vm", "queued")
TPUS = (*CLOUD, "gke")
NAME = r"[a-z]([-a-z0-9]{0,38}[a-z0-9])?"  # of a run, machine or job: every cloud accepts it
WORD = r"[A-Za-z0-9][\w.:@/=+,-]*"
PATH = r"(gs://)?[\w.~/][\w./~+@=,-]*"
HOST = r"[A-Za-z0-9]([\w.@-]*[A-Za-z0-9])?"
PAIR = r"[A-Za-z_]\w*=[^\0\n]*"


def option(
    about: str, check: str = "", targets: tuple[str, ...] = (), default: Any = "", metavar: str = ""
) -> Any:
    """An option: `check` is a regular expression, `targets` are those that accept it."""
    metadata = {"about": about, "check": check, "targets": targets, "metavar": metavar}
    if default is list:
        return dataclasses.field(default=(), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


@dataclass(frozen=True, kw_only=True)
class Request:
    """A parsed command line; `words` are the arguments of e5jax, the stage first."""

    stage: str = "run"
    words: tuple[str, ...] = ()
    config: str = ""
    extras: str = ""  # optional dependencies that the stage needs
    commit: str = ""  # of the staged code

    target: str = option("where to run: %(choices)s (default: %(default)s)", default="local")
    platform: str = option(
        "cpu, cuda or tpu (default: detected; tpu on TPU targets)", metavar="NAME"
    )
    run_name: str = option(
        "name of the run (default: the config's); the same name and workdir resume it",
        NAME,
        metavar="NAME",
    )
    workdir: str = option(
        "directory of the run, shared by all of its machines; or gs://BUCKET/NAME",
        PATH,
        metavar="DIR",
    )
    dry_run: bool = option("print the commands for every host and do nothing", default=False)
    check: bool = option(
        "validate the config and compile the step for --topology; start nothing", default=False
    )
    num_processes: int = option(
        "number of processes (default: one per host)", default=0, metavar="N"
    )
    devices: int = option(
        "devices per process: if a machine runs several processes, or to simulate devices on CPU",
        default=0,
        metavar="N",
    )
    max_restarts: int = option(
        "restarts after a stop or crash (default: 0 with --target=local, else 50)",
        default=-1,
        metavar="N",
    )
    profile: str = option(
        "named set of compiler flags; launch/README.md lists them", metavar="NAME"
    )
    env: tuple[str, ...] = option(
        "environment variable of the run's processes; repeatable",
        PAIR,
        default=list,
        metavar="NAME=VALUE",
    )
    key_file: str = option(
        "secrets of the run's processes as NAME=VALUE lines, mode 0600; never shown",
        PATH,
        metavar="FILE",
    )
    python: str = option(
        "interpreter with all packages; nothing is installed then", PATH, metavar="FILE"
    )
    allow_dirty: bool = option("stage the working tree as it is, not a commit", default=False)
    detach: bool = option("run in the background", targets=("local", "mpi"), default=False)
    topology: str = option(
        "topology for --check, such as v5e:4x4 (default: by --accelerator)",
        r"\w+:\d+(x\d+)*",
        metavar="NAME",
    )

    hosts: tuple[str, ...] = option("hosts to log in to: a,b,c", HOST, ("ssh", "mpi"), list, "LIST")
    host_file: str = option("file with one host per line", PATH, ("ssh", "mpi"), metavar="FILE")
    ssh_config: str = option("configuration file for ssh -F", PATH, ("ssh",), metavar="FILE")
    coordinator: str = option(
        "address of the first process (default: the first host's)",
        r"[\w.-]+:\d+",
        ("ssh", "mpi"),
        metavar="HOST:PORT",
    )
    root: str = option(
        "folder for code and environments on each host (default: %(default)s, in the home)",
        PATH,
        default="e5jax",
        metavar="DIR",
    )

    tpu_name: str = option("name of the machine (default: the run's)", NAME, CLOUD, metavar="NAME")
    accelerator: str = option(
        "accelerator type, such as v5litepod-16, v4-32, v6e-64",
        WORD,
        (*CLOUD, "gke", "sky"),
        metavar="TYPE",
    )
    runtime: str = option(
        "software version of the machine (default: by --accelerator)", WORD, CLOUD, metavar="NAME"
    )
    zone: str = option("zone, such as us-west4-a", WORD, (*CLOUD, "gke"), metavar="ZONE")
    project: str = option(
        "cloud project (default: gcloud's)", WORD, (*CLOUD, "gke"), metavar="NAME"
    )
    slices: int = option(
        "number of slices (default: 1)", targets=("queued", "gke", "local"), default=1, metavar="N"
    )
    spot: bool = option(
        "preemptible machines; recreated after preemption",
        targets=(*CLOUD, "gke", "sky"),
        default=False,
    )
    reserved: bool = option("use a reservation", targets=("queued",), default=False)
    wait: str = option(
        "maximum time in the queue (default: %(default)s)", r"\d+[smhd]", ("queued",), "24h", "TIME"
    )

    image: str = option(
        "container image; the commit becomes its tag", WORD, ("gke",), metavar="NAME"
    )
    build: bool = option("build and push the image first", targets=("gke",), default=False)
    namespace: str = option(
        "Kubernetes namespace (default: %(default)s)", NAME, ("gke",), "default", "NAME"
    )
    secret: str = option(
        "Kubernetes secret whose entries become environment variables",
        NAME,
        ("gke",),
        metavar="NAME",
    )
    service_account: str = option("Kubernetes service account", NAME, ("gke",), metavar="NAME")
    cluster: str = option(
        "GKE cluster; submits through xpk, not kubectl", NAME, ("gke",), metavar="NAME"
    )

    nodes: int = option(
        "nodes of the job (default: one per process)", targets=("slurm",), default=0, metavar="N"
    )
    partition: str = option("Slurm partition", WORD, ("slurm",), metavar="NAME")
    account: str = option("Slurm account", WORD, ("slurm",), metavar="NAME")
    time: str = option(
        "time limit of the job, such as 12:00:00", r"[\d:-]+", ("slurm",), metavar="TIME"
    )
    gpus: int = option("GPUs per node", targets=("slurm", "sky"), default=0, metavar="N")
    notice: int = option(
        "seconds before its time limit at which the job saves (default: %(default)s)",
        targets=("slurm",),
        default=300,
        metavar="S",
    )
    sbatch: tuple[str, ...] = option(
        "another sbatch option; repeatable",
        r"--[a-z][\w-]*(=[\w.:@/=+,-]*)?",
        ("slurm",),
        list,
        "OPTION",
    )

    mpirun: tuple[str, ...] = option(
        "another mpirun argument; repeatable", r"[\w./:@=+,-]+", ("mpi",), list, "WORD"
    )

    @property
    def restarts(self) -> int:
        """Restarts that are allowed, by target if not set."""
        return self.max_restarts if self.max_restarts >= 0 else 0 if self.target == "local" else 50

    @property
    def machine(self) -> str:
        """Name of the TPU or queued resource."""
        return self.tpu_name or self.run_name


def options() -> list[dataclasses.Field]:
    """The fields of Request that are options."""
    return [field for field in dataclasses.fields(Request) if field.metadata]


def flag(name: str) -> str:
    """The option as a user types it."""
    return f"--{name.replace('_', '-')}"


def check(request: Request) -> None:
    """Raises ConfigError for a malformed value or an option of another target."""
    for field in options():
        value = getattr(request, field.name)
        if value == field.default or field.name == "target":
            continue
        if field.metadata["targets"] and request.target not in field.metadata["targets"]:
            known = ", ".join(field.metadata["targets"])
            raise ConfigError(
                f"{flag(field.name)}: is for --target={known}, not --target={request.target}"
            )
        for part in value if isinstance(value, tuple) else (value,):
            _check_value(field, part)
    if request.target in TPUS and request.platform not in ("", "tpu"):
        raise ConfigError(f"--platform={request.platform}: --target={request.target} uses TPUs")
    check_profile(request.profile, request.platform)
    if request.platform and request.platform not in PLATFORMS:
        raise ConfigError(f"--platform={request.platform}: must be one of {', '.join(PLATFORMS)}")
    if request.devices and not request.platform:
        raise ConfigError(
            f"--devices={request.devices}: needs a platform; add --platform=cpu or --platform=cuda"
        )
    if ".." in Path(request.workdir).parts:
        raise ConfigError(
            f"--workdir={request.workdir}: must not contain ..; write the resolved path"
        )


def _check_value(field: dataclasses.Field, value: object) -> None:
    pattern = field.metadata["check"]
    if isinstance(value, str) and pattern and not re.fullmatch(pattern, value, re.ASCII):
        raise ConfigError(f"{flag(field.name)}={value!r}: must match {pattern}")
    if isinstance(value, int) and not isinstance(value, bool) and value < 0:
        raise ConfigError(f"{flag(field.name)}={value}: must not be negative")
