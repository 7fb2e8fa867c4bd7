"""One TPU slice, created directly."""

from functools import partial

from launch.launcher.accelerators import slice_of
from launch.launcher.request import Request
from launch.launcher.targets import cloud


def _create(request: Request) -> list[str]:
    version = request.runtime or slice_of(request.accelerator).generation.runtime
    return [
        f"--accelerator-type={request.accelerator}",
        f"--version={version}",
        *(["--spot"] if request.spot else []),
    ]


TPU_VM = cloud.Resource(
    "tpu-vm",
    "state",
    "READY",
    ("PREEMPTED", "TERMINATED", "STOPPED", "HIDDEN"),
    _create,
    ("--worker=all",),
)
start, act = partial(cloud.start, TPU_VM), partial(cloud.act, TPU_VM)
