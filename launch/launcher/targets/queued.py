"""One or more TPU slices as a queued resource."""

from functools import partial

from launch.launcher.accelerators import slice_of
from launch.launcher.request import Request
from launch.launcher.targets import cloud


def _create(request: Request) -> list[str]:
    version = request.runtime or slice_of(request.accelerator).generation.runtime
    several = [f"--node-count={request.slices}", f"--node-prefix={request.machine}"]
    return [
        *(several if request.slices > 1 else [f"--node-id={request.machine}"]),
        f"--accelerator-type={request.accelerator}",
        f"--runtime-version={version}",
        f"--valid-until-duration={request.wait}",
        *(["--spot"] if request.spot else []),
        *(["--reserved"] if request.reserved else []),
    ]


QUEUED = cloud.Resource(
    "queued-resources",
    "state.state",
    "ACTIVE",
    ("FAILED", "SUSPENDED"),
    _create,
    ("--node=all", "--worker=all"),
    ("--force",),
)
start, act = partial(cloud.start, QUEUED), partial(cloud.act, QUEUED)
