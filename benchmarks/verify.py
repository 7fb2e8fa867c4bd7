"""What verifying a checkpoint costs beside restoring it, and what compression costs and saves, for a state of 1 GB.

.venv/bin/python benchmarks/verify.py [--bytes=1000000000] [--rounds=5] [--layouts ocdbt …] [--folder=DIR] [--output=FILE]

Writes random float32 numbers (parameters and two moments) in each layout that Orbax has, and reads them back: `restore` alone,
`verify` alone (XXH3-128, what a run waits for), `both`, one after the other, and `thorough`, as `e5jax checkpoints verify` does
(SHA-256). Seconds, medians of rounds in turn; `share` is verify / restore, round by round.

Fresh: once in a process that has just started, verify and then restore, as a run does that goes on. Warm: again and again in one
process, whose memory and threads are there already. For both, files are in the page cache. Cold: they were put out of it before
(`posix_fadvise`), and come from the disk, once; whoever comes first then waits for the disk.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp

from e5jax.checkpoint import manifest
from e5jax.config import Mesh
from e5jax.mesh import make_mesh, open_cpu

LEAVES = 24  # arrays of one kind: a stack of layers is few and large ones
LAYOUTS = {
    "ocdbt, zstd": {"use_ocdbt": True, "use_compression": True},
    "ocdbt": {"use_ocdbt": True, "use_compression": False},
    "files, zstd": {"use_ocdbt": False, "use_compression": True},
    "files": {"use_ocdbt": False, "use_compression": False},
}
SCALES = {"parameters": 1e-2, "mu": 1e-5, "nu": 1e-10}
State = dict[str, dict[str, jax.Array]]


def main() -> None:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--bytes", type=int, default=1_000_000_000)
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--layouts", nargs="+", choices=LAYOUTS, default=list(LAYOUTS))
    options.add_argument(
        "--folder", type=Path, help="on the disk to be measured (default: the temporary one)"
    )
    options.add_argument("--output", type=Path)
    options.add_argument(
        "--fresh", type=Path, help=argparse.SUPPRESS
    )  # what is there to be verified and restored, and no more
    args = options.parse_args()
    open_cpu([])
    if args.fresh:
        print(json.dumps(once(args.fresh, LAYOUTS[args.layouts[0]], args.bytes)))
        return
    made, rows = state(args.bytes), []
    for name in args.layouts:
        with tempfile.TemporaryDirectory(dir=args.folder) as place:
            rows.append(
                {"layout": name, **measure(Path(place) / "1", LAYOUTS[name], made, args.rounds)}
            )
            alone = [fresh(Path(place) / "1", name, args.bytes) for _ in range(args.rounds)]
            rows[-1] |= summary("fresh", {key: [one[key] for one in alone] for key in alone[0]})
        print(
            "  ".join(
                f"{key} {value:.3g}" if isinstance(value, float) else str(value)
                for key, value in rows[-1].items()
            )
        )
    if args.output:
        args.output.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


def state(size: int) -> State:
    """Parameters and moments, as large as those of training are."""
    random = np.random.default_rng(0)

    def make(kind: str, like: jax.ShapeDtypeStruct) -> jax.Array:
        values = np.float32(SCALES[kind]) * random.standard_normal(like.shape, np.float32)
        return jax.device_put(np.square(values) if kind == "nu" else values, like.sharding)

    return {
        kind: {name: make(kind, like) for name, like in of.items()}
        for kind, of in abstract(size).items()
    }


def abstract(size: int) -> dict[str, dict[str, jax.ShapeDtypeStruct]]:
    """Its shapes, and where it is."""
    placed = jax.NamedSharding(make_mesh(Mesh()), jax.sharding.PartitionSpec("fsdp"))
    like = jax.ShapeDtypeStruct((1024, size // (4 * 3 * LEAVES * 1024)), "float32", sharding=placed)
    return {kind: {str(number): like for number in range(LEAVES)} for kind in SCALES}


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
        jax.block_until_ready(
            orbax.restore(folder, args=ocp.args.PyTreeRestore(made, restore_args=wanted))
        )

    def verify() -> None:
        manifest.check(folder)

    def thorough() -> None:
        manifest.check(folder, thorough=True)

    ways = {
        "restore": [restore],
        "verify": [verify],
        "both": [verify, restore],
        "thorough": [thorough],
    }
    found: dict[str, float] = {
        "bytes": written.bytes,
        "files": len(written.files),
        "save": save,
        "manifest": hashed,
    }
    for cold in (False, True):
        times: dict[str, list[float]] = {name: [] for name in ways}
        restore()
        for _ in range(rounds):
            for name, way in ways.items():
                times[name].append(timed(folder, cold, way))
        found |= summary("cold" if cold else "warm", times)
    return found


def fresh(folder: Path, layout: str, size: int) -> dict[str, float]:
    """Seconds in a process that has just started."""
    command = [
        sys.executable,
        __file__,
        f"--fresh={folder}",
        f"--bytes={size}",
        "--layouts",
        layout,
    ]
    return json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout)


def once(folder: Path, layout: dict[str, bool], size: int) -> dict[str, float]:
    """Seconds to verify and to restore, once."""
    wanted, orbax = abstract(size), ocp.Checkpointer(ocp.PyTreeCheckpointHandler(**layout))
    begin = time.perf_counter()
    manifest.check(folder)
    verified = time.perf_counter()
    args = ocp.args.PyTreeRestore(
        wanted, restore_args=ocp.checkpoint_utils.construct_restore_args(wanted)
    )
    jax.block_until_ready(orbax.restore(folder, args=args))
    return {"verify": verified - begin, "restore": time.perf_counter() - verified}


def summary(kind: str, times: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """Medians, and what share of a restore verifying is: the median, and the most."""
    shares = [
        verify / restore for verify, restore in zip(times["verify"], times["restore"], strict=True)
    ]
    middle = {f"{kind} {name}": statistics.median(values) for name, values in times.items()}
    return middle | {f"{kind} share": statistics.median(shares), f"{kind} share, most": max(shares)}


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
