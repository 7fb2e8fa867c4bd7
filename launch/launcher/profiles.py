"""Environment variables of runs: per platform, and named sets of compiler flags.

The user's own settings take precedence.
"""

from collections.abc import Mapping
from typing import Literal, NamedTuple, get_args

from e5jax.errors import ConfigError

Platform = Literal["cpu", "cuda", "tpu"]
PLATFORMS: tuple[Platform, ...] = get_args(Platform)
FLAGS = ("XLA_FLAGS", "LIBTPU_INIT_ARGS")  # lists of flags: the last occurrence of a flag counts
EVERYWHERE = {
    "PYTHONUNBUFFERED": "1",
    "TOKENIZERS_PARALLELISM": "false",
    # A step on CPUs allocates gigabytes; huge pages make it about 10 % faster.
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
}
OF_PLATFORM: dict[str, dict[str, str]] = {
    "cpu": {"JAX_PLATFORMS": "cpu"},
    "cuda": {"JAX_PLATFORMS": "cuda,cpu"},
    "tpu": {},
}


class Profile(NamedTuple):
    """Compiler flags of one platform by environment variable."""

    platform: Platform
    about: str
    flags: Mapping[str, tuple[str, ...]]


# All are off by default: each has been compiled, none has been timed.
PROFILES = {
    "tpu-latency": Profile(
        "tpu",
        "latency-hiding scheduler: computes during collectives",
        {"LIBTPU_INIT_ARGS": ("--xla_tpu_enable_latency_hiding_scheduler=true",)},
    ),
    "tpu-overlap": Profile(
        "tpu",
        "all-gathers overlapped and fused with matrix products",
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
        "several slices: a hang or error of one ends all, so that the launcher restarts them",
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
        "latency-hiding scheduler: computes during collectives",
        {"XLA_FLAGS": ("--xla_gpu_enable_latency_hiding_scheduler=true",)},
    ),
    "cuda-repeatable": Profile(
        "cuda",
        "deterministic order of sums: repeated runs are bit-identical",
        {"XLA_FLAGS": ("--xla_gpu_deterministic_ops=true",)},
    ),
}


def check_profile(name: str, platform: str) -> None:
    """Raises ConfigError if a profile is unknown or for another platform."""
    if not name:
        return
    if name not in PROFILES:
        raise ConfigError(
            f"--profile={name}: unknown profile; must be one of {', '.join(PROFILES)}"
        )
    if platform and PROFILES[name].platform != platform:
        raise ConfigError(
            f"--profile={name}: is for --platform={PROFILES[name].platform}, not {platform}"
        )


def environment(platform: str, profile: str = "", devices: int = 0) -> dict[str, str]:
    """Variables that the launcher sets; `devices` is the number of simulated CPU devices or 0."""
    variables = EVERYWHERE | OF_PLATFORM.get(platform, {})
    lists = {name: [*flags] for name, flags in PROFILES[profile].flags.items()} if profile else {}
    if devices and platform == "cpu":
        lists.setdefault("XLA_FLAGS", []).append(
            f"--xla_force_host_platform_device_count={devices}"
        )
    return variables | {name: " ".join(flags) for name, flags in lists.items()}


def merge(defaults: Mapping[str, str], own: Mapping[str, str]) -> dict[str, str]:
    """`own` overrides `defaults`; lists of flags are joined, `own` last, so that it wins."""
    merged = {**defaults, **own}
    for name in FLAGS:
        if name in defaults:
            merged[name] = f"{defaults[name]} {own.get(name, '')}".strip()
    return merged
