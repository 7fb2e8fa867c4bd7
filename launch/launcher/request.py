"""What the user asks for: every option of the launcher, each with its check; a value that passes can stand in any command."""

import dataclasses
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from e5jax.errors import ConfigError
from launch.launcher.profiles import PLATFORMS, check_profile

TARGETS = ("local", "ssh", "tpu-vm", "queued", "gke", "slurm", "mpi", "sky")
CLOUD = ("tpu-vm", "queued")
TPUS = (*CLOUD, "gke")
NAME = r"[a-z]([-a-z0-9]{0,38}[a-z0-9])?"  # of a run, a machine, a job: what all clouds take
WORD = r"[A-Za-z0-9][\w.:@/=+,-]*"
PATH = r"(gs://)?[\w.~/][\w./~+@=,-]*"
HOST = r"[A-Za-z0-9]([\w.@-]*[A-Za-z0-9])?"
PAIR = r"[A-Za-z_]\w*=[^\0\n]*"


def option(
    about: str, check: str = "", of: tuple[str, ...] = (), default: Any = "", metavar: str = ""
) -> Any:
    """A field that is an option; `check` is what a value must match, `of` the targets that know it (none: all)."""
    metadata = {"about": about, "check": check, "of": of, "metavar": metavar}
    if default is list:
        return field(default=(), metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass(frozen=True, kw_only=True)
class Request:
    """A command line; `words` are e5jax's own arguments, the stage first."""

    stage: str = "run"
    words: tuple[str, ...] = ()
    config: str = ""
    extras: str = ""  # of this package, that the stage needs
    commit: str = ""  # of the code that was staged

    target: str = option("where it runs: %(choices)s (default: %(default)s)", default="local")
    platform: str = option(
        "cpu, cuda or tpu (default: what is there; tpu on TPU targets)", metavar="NAME"
    )
    run_name: str = option(
        "of the run; the same name and workdir go on (default: the config's)", NAME, metavar="NAME"
    )
    workdir: str = option(
        "of the run, seen by all of its machines; or gs://BUCKET/NAME", PATH, metavar="DIR"
    )
    dry_run: bool = option("prints the commands for every host, and does nothing", default=False)
    check: bool = option(
        "validates, compiles the step for --topology, and starts nothing", default=False
    )
    num_processes: int = option("of the run (default: one a host)", default=0, metavar="N")
    devices: int = option(
        "of each process, where a machine has several processes or its CPU is to be many",
        default=0,
        metavar="N",
    )
    max_restarts: int = option(
        "of a run that was stopped or broke (default: 0 here, 50 elsewhere)",
        default=-1,
        metavar="N",
    )
    profile: str = option("compiler flags of that name; launch/README.md has them", metavar="NAME")
    env: tuple[str, ...] = option(
        "for the run's processes; may be given again", PAIR, default=list, metavar="NAME=VALUE"
    )
    key_file: str = option(
        "NAME=VALUE lines for the run's processes, mode 0600; never shown", PATH, metavar="FILE"
    )
    python: str = option(
        "an interpreter that has everything; nothing is installed then", PATH, metavar="FILE"
    )
    allow_dirty: bool = option("stages the working tree as it is, not a commit", default=False)
    detach: bool = option("goes on in the background", of=("local", "mpi"), default=False)
    topology: str = option(
        "for --check, such as v5e:4x4 (default: by --accelerator)",
        r"\w+:\d+(x\d+)*",
        metavar="NAME",
    )

    hosts: tuple[str, ...] = option(
        "that one can log in to: a,b,c", HOST, ("ssh", "mpi"), list, "LIST"
    )
    host_file: str = option("one host a line", PATH, ("ssh", "mpi"), metavar="FILE")
    ssh_config: str = option("for ssh -F", PATH, ("ssh",), metavar="FILE")
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

    tpu_name: str = option("of the machine (default: the run's)", NAME, CLOUD, metavar="NAME")
    accelerator: str = option(
        "such as v5litepod-16, v4-32, v6e-64", WORD, (*CLOUD, "gke", "sky"), metavar="TYPE"
    )
    runtime: str = option(
        "software version of the machine (default: by --accelerator)", WORD, CLOUD, metavar="NAME"
    )
    zone: str = option("such as us-west4-a", WORD, (*CLOUD, "gke"), metavar="ZONE")
    project: str = option("of the cloud (default: gcloud's)", WORD, (*CLOUD, "gke"), metavar="NAME")
    slices: int = option(
        "that many of them (default: 1)", of=("queued", "gke", "local"), default=1, metavar="N"
    )
    spot: bool = option(
        "cheaper machines that may be taken away; they are made anew",
        of=(*CLOUD, "gke", "sky"),
        default=False,
    )
    reserved: bool = option("machines of a reservation", of=("queued",), default=False)
    wait: str = option(
        "how long to queue (default: %(default)s)", r"\d+[smhd]", ("queued",), "24h", "TIME"
    )

    image: str = option("container image; its tag is the commit", WORD, ("gke",), metavar="NAME")
    build: bool = option("builds and pushes the image first", of=("gke",), default=False)
    namespace: str = option(
        "of Kubernetes (default: %(default)s)", NAME, ("gke",), "default", "NAME"
    )
    secret: str = option(
        "a secret of Kubernetes, whose entries become the run's keys",
        NAME,
        ("gke",),
        metavar="NAME",
    )
    service_account: str = option("of Kubernetes", NAME, ("gke",), metavar="NAME")
    cluster: str = option("of GKE: through xpk and not kubectl", NAME, ("gke",), metavar="NAME")

    nodes: int = option(
        "of the job (default: as many as processes)", of=("slurm",), default=0, metavar="N"
    )
    partition: str = option("of Slurm", WORD, ("slurm",), metavar="NAME")
    account: str = option("of Slurm", WORD, ("slurm",), metavar="NAME")
    time: str = option("limit of the job, such as 12:00:00", r"[\d:-]+", ("slurm",), metavar="TIME")
    gpus: int = option("of each node", of=("slurm", "sky"), default=0, metavar="N")
    notice: int = option(
        "seconds before its limit that the job is told to save (default: %(default)s)",
        of=("slurm",),
        default=300,
        metavar="S",
    )
    sbatch: tuple[str, ...] = option(
        "another option of sbatch; may be given again",
        r"--[a-z][\w-]*(=[\w.:@/=+,-]*)?",
        ("slurm",),
        list,
        "OPTION",
    )

    mpirun: tuple[str, ...] = option(
        "another word for mpirun; may be given again", r"[\w./:@=+,-]+", ("mpi",), list, "WORD"
    )

    @property
    def restarts(self) -> int:
        """How many, if it was not said."""
        return self.max_restarts if self.max_restarts >= 0 else 0 if self.target == "local" else 50

    @property
    def machine(self) -> str:
        """Name of the TPU or queued resource."""
        return self.tpu_name or self.run_name


def options() -> list[dataclasses.Field]:
    """Fields that are options."""
    return [one for one in dataclasses.fields(Request) if one.metadata]


def flag(name: str) -> str:
    """As it is typed."""
    return f"--{name.replace('_', '-')}"


def check(request: Request) -> None:
    """Raises ConfigError for a value that is no name, no number or of another target. Says which and the fix."""
    for one in options():
        value = getattr(request, one.name)
        if value == one.default or one.name == "target":
            continue
        if one.metadata["of"] and request.target not in one.metadata["of"]:
            known = ", ".join(one.metadata["of"])
            raise ConfigError(
                f"{flag(one.name)}: is for --target={known}, and this is --target={request.target}"
            )
        for part in value if isinstance(value, tuple) else (value,):
            _check_value(one, part)
    if request.target in TPUS and request.platform not in ("", "tpu"):
        raise ConfigError(f"--platform={request.platform}: --target={request.target} has TPUs")
    check_profile(request.profile, request.platform)
    if request.platform and request.platform not in PLATFORMS:
        raise ConfigError(f"--platform={request.platform}: there are {', '.join(PLATFORMS)}")
    if request.devices and not request.platform:
        raise ConfigError(
            f"--devices={request.devices}: of which platform? add --platform=cpu or --platform=cuda"
        )
    if ".." in Path(request.workdir).parts:
        raise ConfigError(
            f"--workdir={request.workdir}: must not go up with ..; write the directory itself"
        )


def _check_value(one: dataclasses.Field, value: object) -> None:
    wanted = one.metadata["check"]
    if isinstance(value, str) and wanted and not re.fullmatch(wanted, value, re.ASCII):
        raise ConfigError(f"{flag(one.name)}={value!r}: must match {wanted}")
    if isinstance(value, int) and not isinstance(value, bool) and value < 0:
        raise ConfigError(f"{flag(one.name)}={value}: must not be negative")
