"""Environments that runs get: what a platform needs, and named sets of compiler flags. The user's own settings go before them."""

from collections.abc import Mapping
from typing import Literal, NamedTuple, get_args

from e5jax.errors import ConfigError

Platform = Literal["cpu", "cuda", "tpu"]
PLATFORMS: tuple[Platform, ...] = get_args(Platform)
FLAGS = ("XLA_FLAGS", "LIBTPU_INIT_ARGS")  # lists: the last word on a flag counts
EVERYWHERE = {
    "PYTHONUNBUFFERED": "1",
    "TOKENIZERS_PARALLELISM": "false",
    # A step on CPUs allocates gigabytes anew; in huge pages that takes a tenth less time. Elsewhere it changes nothing.
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
}
OF_PLATFORM: dict[str, dict[str, str]] = {
    "cpu": {"JAX_PLATFORMS": "cpu"},
    "cuda": {"JAX_PLATFORMS": "cuda,cpu"},
    "tpu": {},
}


class Profile(NamedTuple):
    """Compiler flags by the variable that takes them, for one platform, and what they are for."""

    platform: Platform
    about: str
    flags: Mapping[str, tuple[str, ...]]


# None is on by default: each has been compiled, none has been timed.
PROFILES = {
    "tpu-latency": Profile(
        "tpu",
        "the latency-hiding scheduler: computes while collectives are under way",
        {"LIBTPU_INIT_ARGS": ("--xla_tpu_enable_latency_hiding_scheduler=true",)},
    ),
    "tpu-overlap": Profile(
        "tpu",
        "gathers in the background of products, fused with them",
        {
            "LIBTPU_INIT_ARGS": (
                "--xla_tpu_enable_async_collective_fusion=true",
                "--xla_tpu_enable_async_collective_fusion_fuse_all_gather=true",
                "--xla_tpu_enable_async_collective_fusion_multiple_steps=true",
                "--xla_tpu_overlap_compute_collective_tc=true",
                "--xla_enable_async_all_gather=true",
            )
        },
    ),
    "tpu-slices": Profile(
        "tpu",
        "several slices: a hang or an error of one ends all of them, for the launcher to start again",
        {
            "LIBTPU_INIT_ARGS": (
                "--megascale_error_reporter_abort_on_hang=true",
                "--megascale_error_reporter_abort_on_error=true",
                "--megascale_graph_hang_threshold=10m",
            )
        },
    ),
    "cuda-latency": Profile(
        "cuda",
        "the latency-hiding scheduler: computes while collectives are under way",
        {"XLA_FLAGS": ("--xla_gpu_enable_latency_hiding_scheduler=true",)},
    ),
    "cuda-repeatable": Profile(
        "cuda",
        "sums in one order: the same run gives the same bits",
        {"XLA_FLAGS": ("--xla_gpu_deterministic_ops=true",)},
    ),
}


def check_profile(name: str, platform: str) -> None:
    """Raises ConfigError for a profile that is unknown, or of another platform."""
    if not name:
        return
    if name not in PROFILES:
        raise ConfigError(
            f"--profile={name}: there is none of that name; there are {', '.join(PROFILES)}"
        )
    if platform and PROFILES[name].platform != platform:
        raise ConfigError(
            f"--profile={name}: is for --platform={PROFILES[name].platform}, and this run is on {platform}"
        )


def environment(platform: str, profile: str = "", devices: int = 0) -> dict[str, str]:
    """What the launcher sets; `devices` is how many a CPU is to be made of, 0 for what the run takes."""
    made = EVERYWHERE | OF_PLATFORM.get(platform, {})
    lists = {name: [*flags] for name, flags in PROFILES[profile].flags.items()} if profile else {}
    if devices and platform == "cpu":
        lists.setdefault("XLA_FLAGS", []).append(
            f"--xla_force_host_platform_device_count={devices}"
        )
    return made | {name: " ".join(flags) for name, flags in lists.items()}


def merge(made: Mapping[str, str], own: Mapping[str, str]) -> dict[str, str]:
    """An environment in which `own` goes before what is `made`; lists of flags have both, the own ones last, which count."""
    merged = {**made, **own}
    for name in FLAGS:
        if name in made:
            merged[name] = f"{made[name]} {own.get(name, '')}".strip()
    return merged
