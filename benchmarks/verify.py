"""What verifying a checkpoint costs beside restoring it, and what compression costs and saves, for a state of 1 GB.

.venv/bin/python benchmarks/verify.py [--bytes=1000000000] [--rounds=5] [--layouts ocdbt …] [--folder=DIR] [--output=FILE]

Writes random float32 numbers (parameters and two moments) in each layout that Orbax has, and reads them back: `restore` alone,
`verify` alone (XXH3-128, what a run waits for), `both`, one after the other, as a run does that goes on, and `thorough`, as
`e5jax checkpoints verify` does (SHA-256). Warm: files are in the page cache. Cold: they were put out of it before
(`posix_fadvise`), and come from the disk, once. Seconds, medians of rounds in turn. `share` is verify / restore, round by round.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp

from e5jax import manifest
from e5jax.config import Mesh
from e5jax.mesh import make_mesh, open_cpu

LEAVES = 24  # arrays of one kind: a stack of layers is few and large ones
LAYOUTS = {
    "ocdbt, zstd": {"use_ocdbt": True, "use_compression": True},
    "ocdbt": {"use_ocdbt": True, "use_compression": False},
    "files, zstd": {"use_ocdbt": False, "use_compression": True},
    "files": {"use_ocdbt": False, "use_compression": False},
}
State = dict[str, dict[str, jax.Array]]


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--bytes", type=int, default=1_000_000_000)
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--layouts", nargs="+", choices=LAYOUTS, default=list(LAYOUTS))
    options.add_argument("--folder", type=Path, help="on the disk to be measured (default: the temporary one)")
    options.add_argument("--output", type=Path)
    args = options.parse_args()
    open_cpu([])
    made, rows = state(args.bytes), []
    for name in args.layouts:
        with tempfile.TemporaryDirectory(dir=args.folder) as place:
            rows.append({"layout": name, **measure(Path(place) / "1", LAYOUTS[name], made, args.rounds)})
        print("  ".join(f"{key} {value:.3g}" if isinstance(value, float) else str(value) for key, value in rows[-1].items()))
    if args.output:
        args.output.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


def state(size: int) -> State:
    """Parameters and moments, as large as those of training are."""
    random, mesh = np.random.default_rng(0), make_mesh(Mesh())
    placed = jax.NamedSharding(mesh, jax.sharding.PartitionSpec("fsdp"))
    width = size // (4 * 3 * LEAVES * 1024)
    scales = {"parameters": 1e-2, "mu": 1e-5, "nu": 1e-10}

    def make(kind: str) -> jax.Array:
        values = np.float32(scales[kind]) * random.standard_normal((1024, width), np.float32)
        return jax.device_put(np.square(values) if kind == "nu" else values, placed)

    return {kind: {str(number): make(kind) for number in range(LEAVES)} for kind in scales}


def measure(folder: Path, layout: dict[str, bool], made: State, rounds: int) -> dict[str, float]:
    """Seconds, and bytes on the disk."""
    orbax = ocp.Checkpointer(ocp.PyTreeCheckpointHandler(**layout))
    begin = time.perf_counter()
    orbax.save(folder, args=ocp.args.PyTreeSave(made))
    save = time.perf_counter() - begin
    begin = time.perf_counter()
    written = manifest.write(folder, {})
    hashed = time.perf_counter() - begin
    wanted = ocp.checkpoint_utils.construct_restore_args(made)

    def restore() -> None:
        jax.block_until_ready(orbax.restore(folder, args=ocp.args.PyTreeRestore(made, restore_args=wanted)))

    def verify() -> None:
        manifest.check(folder)

    def thorough() -> None:
        manifest.check(folder, thorough=True)

    ways = {"restore": [restore], "verify": [verify], "both": [verify, restore], "thorough": [thorough]}
    found: dict[str, float] = {"bytes": written.bytes, "files": len(written.files), "save": save, "manifest": hashed}
    for cold in (False, True):
        times: dict[str, list[float]] = {name: [] for name in ways}
        restore()
        for _ in range(rounds):
            for name, way in ways.items():
                times[name].append(timed(folder, cold, way))
        kind = "cold" if cold else "warm"
        shares = [verify / restore for verify, restore in zip(times["verify"], times["restore"], strict=True)]
        found |= {f"{kind} {name}": statistics.median(values) for name, values in times.items()}
        found |= {f"{kind} share": statistics.median(shares), f"{kind} share, most": max(shares)}
    return found


def timed(folder: Path, cold: bool, way: list[Callable[[], None]]) -> float:
    for file in folder.rglob("*") if cold else ():
        if file.is_file():
            with file.open("rb") as opened:
                os.fsync(opened.fileno())
                os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    begin = time.perf_counter()
    for part in way:
        part()
    return time.perf_counter() - begin


if __name__ == "__main__":
    main()
