"""`e5jax doctor`: checks packages, memory, disks, network, keys and devices before a run.

Prints one line per check: `ok`; `note` for what some runs need; `bad` for what will end any run,
with the fix.
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
SECONDS = 5  # time limit of a request
GIB = 2**30
DISK, MEMORY = 20 * GIB, 2 * GIB  # free bytes below which a line is not `ok`
TOLERANCE = 1e-5  # the numbers are small integers, which every precision represents exactly


class Finding(NamedTuple):
    """One printed line."""

    level: Level
    subject: str
    text: str

    def __str__(self) -> str:
        return f"{self.level:4}  {self.subject}: {self.text}"


def main(workdir: Path) -> int:
    """Runs all checks and prints each result at once. Returns 1 if any is `bad`."""
    code = DONE
    for check in CHECKS:
        for finding in check(workdir):
            print(finding, flush=True)
            code = ERROR if finding.level == "bad" else code
    return code


def packages(_: Path) -> Iterator[Finding]:
    """Checks the commit, Python and package versions."""
    try:
        installed = {**versions.versions(), **versions.optional()}
    except PackageNotFoundError as error:
        fix = "pip install -r requirements.txt"
        yield Finding("bad", "versions", f"the package {error.name} is missing; {fix}")
        return
    names = ", ".join(f"{name} {version}" for name, version in installed.items())
    yield Finding("ok", "versions", f"commit {versions.commit()}, {names}")


def memory(_: Path) -> Iterator[Finding]:
    """Checks the free memory of this machine."""
    file = Path("/proc/meminfo")
    if not file.is_file():
        yield Finding("note", "memory", "this system does not report it")
        return
    lines = dict(line.split(":") for line in file.read_text(encoding="utf-8").splitlines())
    free, total = (int(lines[name].split()[0]) * 1024 for name in ("MemAvailable", "MemTotal"))
    text = f"{free / GIB:.1f} of {total / GIB:.1f} GiB free, {os.cpu_count()} cores"
    if free >= MEMORY:
        yield Finding("ok", "memory", text)
    else:
        yield Finding("bad", "memory", f"{text}; end other programs")


def disks(workdir: Path) -> Iterator[Finding]:
    """Checks the disks of the run and of the hub's cache."""
    cache = Path(os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface")
    for name, folder in (("run", workdir), ("hub cache", cache)):
        above = (folder.absolute(), *folder.absolute().parents)
        existing = next(path for path in above if path.exists())
        free, subject = shutil.disk_usage(existing).free, f"disk of the {name}"
        text = f"{free / GIB:.1f} GiB free at {folder}"
        if not os.access(existing, os.W_OK):
            yield Finding("bad", subject, f"{existing} cannot be written; choose another folder")
        elif free < DISK:
            need = f"a 7B model and its export need {2 * DISK / GIB:.0f}"
            yield Finding("note", subject, f"{text}; {need}")
        else:
            yield Finding("ok", subject, text)


def network(_: Path) -> Iterator[Finding]:
    """Checks whether the hub answers."""
    if os.environ.get("HF_HUB_OFFLINE", "") not in ("", "0"):
        text = "HF_HUB_OFFLINE is set: bases come from folders or the cache"
        yield Finding("note", "network", text)
        return
    url = os.environ.get("HF_ENDPOINT", HUB)
    begin = time.monotonic()
    try:
        with urllib.request.urlopen(url, timeout=SECONDS):  # noqa: S310  the user has set it
            pass
    except (urllib.error.URLError, TimeoutError, ValueError) as error:
        text = f"{url} does not answer ({error}): bases and data must be here already"
        yield Finding("note", "network", text)
        return
    yield Finding("ok", "network", f"{url} answers in {time.monotonic() - begin:.1f} s")


def keys(_: Path, environment: Mapping[str, str] = os.environ) -> Iterator[Finding]:
    """Lists which keys are set, never their values."""
    names = [name for name in KEYS if environment.get(name)]
    text = f"set: {', '.join(names) or 'none'}; public models and data need none"
    yield Finding("ok" if names else "note", "keys", text)


def devices(_: Path) -> Iterator[Finding]:
    """Checks which devices JAX sees, and that it can compute on all of them together."""
    import jax

    try:
        seen = jax.devices()
    except RuntimeError as error:
        platforms = os.environ.get("JAX_PLATFORMS", "")
        fix = f"JAX_PLATFORMS={platforms!r}; is it e5jax[tpu] or e5jax[cuda]?"
        yield Finding("bad", "devices", f"{str(error).splitlines()[0]}; {fix}")
        return
    limit = (seen[0].memory_stats() or {}).get("bytes_limit")
    room = f", {limit / GIB:.1f} GiB each" if limit else ""
    yield Finding("ok", "devices", f"{len(seen)} × {seen[0].device_kind}{room}")
    begin = time.monotonic()
    error = sharded_step()
    seconds = time.monotonic() - begin
    text = f"largest relative difference {error:.1e}, {seconds:.1f} s with compiling"
    if error < TOLERANCE:
        yield Finding("ok", "sharded step", text)
    else:
        fix = "the devices compute wrong numbers; take another machine"
        yield Finding("bad", "sharded step", f"{text}; {fix}")


def sharded_step() -> float:
    """Returns how far the gradient of a product differs from NumPy's.

    Rows are sharded over all devices. The difference is relative to the largest number.
    """
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


CHECKS: tuple[Callable[[Path], Iterator[Finding]], ...] = (
    packages,
    memory,
    disks,
    network,
    keys,
    devices,
)
