"""`e5jax doctor`: looks at this machine before a run does: versions, memory, disks, network, keys, devices, a small sharded step.

A line each: `ok`, `note` for what some runs miss, `bad` for what will end any run, with the fix.
"""

import os
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Literal, NamedTuple

from e5jax import versions
from e5jax.errors import DONE, ERROR

Level = Literal["ok", "note", "bad"]
HUB = "https://huggingface.co"
KEYS = (
    "HF_TOKEN",
    "OPENAI_API_KEY",
    "WANDB_API_KEY",
    "GOOGLE_APPLICATION_CREDENTIALS",
    "AWS_ACCESS_KEY_ID",
)
SECONDS = 5  # that a server may take
GIB = 2**30
DISK, MEMORY = 20 * GIB, 2 * GIB  # below which somebody should know
TOLERANCE = 1e-5  # the numbers are small integers, that no precision rounds: only what computes wrongly is further away


class Finding(NamedTuple):
    """What one look has found."""

    level: Level
    what: str
    said: str

    def __str__(self) -> str:
        return f"{self.level:4}  {self.what}: {self.said}"


def main(workdir: Path) -> int:
    """Prints what each look finds, as it comes. Returns 1 if something is bad."""
    worst = DONE
    for look in LOOKS:
        for finding in look(workdir):
            print(finding, flush=True)
            worst = ERROR if finding.level == "bad" else worst
    return worst


def packages(_: Path) -> Iterator[Finding]:
    """Commit, Python and packages."""
    try:
        said = {**versions.versions(), **versions.optional()}
    except PackageNotFoundError as error:
        yield Finding(
            "bad",
            "versions",
            f"the package {error.name} is missing; pip install -r requirements.txt",
        )
        return
    listed = ", ".join(f"{name} {version}" for name, version in said.items())
    yield Finding("ok", "versions", f"commit {versions.commit()}, {listed}")


def memory(_: Path) -> Iterator[Finding]:
    """Of this machine."""
    found = Path("/proc/meminfo")
    if not found.is_file():
        yield Finding("note", "memory", "this system does not say")
        return
    lines = dict(line.split(":") for line in found.read_text(encoding="utf-8").splitlines())
    free, whole = (int(lines[name].split()[0]) * 1024 for name in ("MemAvailable", "MemTotal"))
    said = f"{free / GIB:.1f} of {whole / GIB:.1f} GiB free, {os.cpu_count()} cores"
    yield (
        Finding("ok", "memory", said)
        if free >= MEMORY
        else Finding("bad", "memory", f"{said}; end other programs")
    )


def disks(workdir: Path) -> Iterator[Finding]:
    """Where the run and the hub's files go."""
    cache = Path(os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface")
    for name, place in (("run", workdir), ("hub cache", cache)):
        there = next(
            path for path in (place.absolute(), *place.absolute().parents) if path.exists()
        )
        free = shutil.disk_usage(there).free
        said = f"{free / GIB:.1f} GiB free at {place}"
        if not os.access(there, os.W_OK):
            yield Finding(
                "bad", f"disk of the {name}", f"{there} cannot be written; name another place"
            )
        elif free < DISK:
            yield Finding(
                "note",
                f"disk of the {name}",
                f"{said}; a 7B model and its export need {2 * DISK / GIB:.0f}",
            )
        else:
            yield Finding("ok", f"disk of the {name}", said)


def network(_: Path) -> Iterator[Finding]:
    """Whether the hub answers."""
    if os.environ.get("HF_HUB_OFFLINE", "") not in ("", "0"):
        yield Finding(
            "note", "network", "HF_HUB_OFFLINE is set: bases come from folders or the cache"
        )
        return
    where = os.environ.get("HF_ENDPOINT", HUB)
    begin = time.monotonic()
    try:
        with urllib.request.urlopen(where, timeout=SECONDS):  # noqa: S310  what the user has set
            pass
    except (urllib.error.URLError, TimeoutError, ValueError) as error:
        yield Finding(
            "note",
            "network",
            f"{where} does not answer ({error}): bases and data must be here already",
        )
        return
    yield Finding("ok", "network", f"{where} answers in {time.monotonic() - begin:.1f} s")


def keys(_: Path, environment: Mapping[str, str] = os.environ) -> Iterator[Finding]:
    """Which are set; never what they are."""
    there = [name for name in KEYS if environment.get(name)]
    yield Finding(
        "ok" if there else "note",
        "keys",
        f"set: {', '.join(there) or 'none'}; not needed for what is public",
    )


def devices(_: Path) -> Iterator[Finding]:
    """What JAX finds, and whether it can compute on all of it together."""
    import jax

    try:
        found = jax.devices()
    except RuntimeError as error:
        platforms = os.environ.get("JAX_PLATFORMS", "")
        yield Finding(
            "bad",
            "devices",
            f"{str(error).splitlines()[0]}; JAX_PLATFORMS={platforms!r}; is it e5jax[tpu] or e5jax[cuda]?",
        )
        return
    limits = [(device.memory_stats() or {}).get("bytes_limit") for device in found[:1]]
    room = f", {limits[0] / GIB:.1f} GiB each" if limits[0] else ""
    yield Finding("ok", "devices", f"{len(found)} × {found[0].device_kind}{room}")
    begin = time.monotonic()
    error = sharded_step()
    said = (
        f"largest relative difference {error:.1e}, {time.monotonic() - begin:.1f} s with compiling"
    )
    if error < TOLERANCE:
        yield Finding("ok", "sharded step", said)
    else:
        yield Finding(
            "bad", "sharded step", f"{said}: the devices compute wrongly; take another machine"
        )


def sharded_step() -> float:
    """How far the gradient of a product, its rows dealt to all devices, is from NumPy's, relative to its largest number."""
    import jax
    import jax.numpy as jnp
    import numpy as np
    from jax.sharding import NamedSharding, PartitionSpec

    from e5jax.config import Mesh
    from e5jax.mesh import make_mesh

    mesh = make_mesh(Mesh(data=-1, fsdp=1))
    random = np.random.default_rng(0)
    x, w = (
        random.integers(-2, 3, shape).astype(np.float32)
        for shape in ((64 * mesh.size, 128), (128, 64))
    )
    with jax.set_mesh(mesh):
        rows = jax.device_put(x, NamedSharding(mesh, PartitionSpec("data", None)))
        weight = jax.device_put(w, NamedSharding(mesh, PartitionSpec(None, None)))
        loss = jax.jit(
            jax.grad(
                lambda weight, rows: jnp.sum(jnp.square(jnp.einsum("bd,de->be", rows, weight)))
            )
        )
        made = np.asarray(loss(weight, rows), np.float64)
    wanted = 2 * x.astype(np.float64).T @ (x.astype(np.float64) @ w)
    return float(np.abs(made - wanted).max() / np.abs(wanted).max())


LOOKS: tuple[Callable[[Path], Iterator[Finding]], ...] = (
    packages,
    memory,
    disks,
    network,
    keys,
    devices,
)
