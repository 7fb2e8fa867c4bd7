"""Host memory of reading a base folder into sharded arrays on eight simulated devices, for several meshes and dtypes.

.venv/bin/python benchmarks/loading.py [--layers=4] [--hidden=4096] [--ff=14336] [--output=FILE]

Writes a Mistral folder of random bfloat16 weights to a temporary directory, 2.0 GB by default, and reads it in a process of
its own for each row. `peak` is the most that this process held while it read (`VmHWM` of Linux) above what it held before;
on a CPU the arrays are part of it. Arrays that several devices hold are counted for each, although they may share memory.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import jax
import ml_dtypes
import numpy as np

from e5jax.config import Lora, Mesh
from e5jax.mesh import make_mesh
from e5jax.model import hf_weights
from e5jax.model.families import read_spec
from e5jax.model.families.mistral import config_from_spec
from e5jax.model.model_def import model_def
from e5jax.model.spec import Spec

MESHES = {"fsdp=8": (1, 8, 1), "2x2x2": (2, 2, 2)}
KINDS = {
    "bfloat16": ("bfloat16", "none"),
    "float32": ("float32", "none"),
    "int8": ("bfloat16", "int8"),
    "int4": ("bfloat16", "int4"),
}
COLUMNS = (
    "mesh",
    "weights",
    "array_bytes",
    "unique_bytes",
    "peak_bytes",
    "peak_minus_arrays",
    "peak_minus_unique",
    "seconds",
)


def main() -> None:
    """Measures, prints a table, writes JSON."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name, size in {"layers": 4, "hidden": 4_096, "ff": 14_336}.items():
        options.add_argument(f"--{name}", type=int, default=size)
    options.add_argument("--kinds", nargs="+", choices=KINDS, default=["bfloat16", "int8", "int4"])
    options.add_argument("--output", type=Path)
    options.add_argument(
        "--read",
        nargs=3,
        metavar=("FOLDER", "MESH", "KIND"),
        help="one row as JSON, in this process",
    )
    args = options.parse_args()
    if args.read:
        print(json.dumps(read(Path(args.read[0]), args.read[1], args.read[2])))
        return
    heads = args.hidden // 128
    spec = Spec(
        "mistral",
        32_000,
        args.hidden,
        args.ff,
        args.layers,
        heads,
        max(heads // 4, 1),
        128,
        1e4,
        None,
        1e-5,
        1,
        2,
    )
    with tempfile.TemporaryDirectory() as place:
        size = write(Path(place), spec)
        print(
            f"{size / 1e9:.2f} GB of bfloat16 weights\n"
            + "".join(f"{name:<19}" for name in COLUMNS)
        )
        rows = [measure(Path(place), mesh, kind) for mesh in MESHES for kind in args.kinds]
    if args.output:
        args.output.write_text(json.dumps({"folder_bytes": size, "rows": rows}, indent=2) + "\n")


def write(folder: Path, spec: Spec) -> int:
    """A folder of random weights. Returns the bytes of its numbers."""
    random = np.random.default_rng(0)
    of = model_def(spec, None, dtype="bfloat16", remat="nothing", kernel="xla")
    tensors = []
    for path, leaf in of.leaves.items():
        shape = hf_weights.stored_shape(path, leaf.shape)

        def get(shape: tuple[int, ...] = shape) -> np.ndarray:
            return (0.02 * random.standard_normal(shape, np.float32)).astype(ml_dtypes.bfloat16)

        tensors += [(name, shape, get) for name in hf_weights.names_of(spec, path)]
    hf_weights.SHARD_BYTES = (
        500_000_000  # little memory for the writer, and several files as large models have
    )
    hf_weights.save(folder, tensors, "bfloat16")
    (folder / "config.json").write_text(json.dumps(config_from_spec(spec, 512, "bfloat16")))
    return 2 * sum(int(np.prod(shape)) for _, shape, _ in tensors)


def measure(folder: Path, mesh: str, kind: str) -> dict:
    """One row, printed as well."""
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "--xla_force_host_platform_device_count=8",
    }
    command = [sys.executable, __file__, "--read", str(folder), mesh, kind]
    row = json.loads(
        subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout
    )
    print(
        "".join(
            f"{row[name] / 1e9:<19.3f}"
            if name.endswith(("bytes", "arrays", "unique"))
            else f"{row[name]:<19}"
            for name in COLUMNS
        )
    )
    return row


def read(folder: Path, mesh: str, kind: str) -> dict:
    """Reads the folder and says what that took."""
    dtype, quantisation = KINDS[kind]
    spec, on = read_spec(folder), make_mesh(Mesh(*MESHES[mesh]))
    of = model_def(
        spec, Lora(), dtype=dtype, remat="nothing", kernel="xla", quantisation=quantisation
    )
    wanted = of.abstract(of.frozen, on, dtype)
    hf_weights.check(
        folder, spec, wanted
    )  # what the first look at a folder costs is none of the arrays' business
    jax.device_put(np.zeros(8), jax.devices()[0]).block_until_ready()
    before, start = status("VmRSS"), time.perf_counter()
    arrays = hf_weights.load(folder, spec, wanted)
    seconds = time.perf_counter() - start
    shards = [(name, shard) for name, array in arrays.items() for shard in array.addressable_shards]
    sizes = {(name, str(shard.index)): packed(shard.data) for name, shard in shards}
    held, unique, peak = (
        sum(packed(shard.data) for _, shard in shards),
        sum(sizes.values()),
        status("VmHWM") - before,
    )
    figures = held, unique, peak, peak - held, peak - unique, round(seconds, 1)
    return dict(zip(COLUMNS, (mesh, kind, *figures), strict=True))


def packed(array: jax.Array) -> int:
    """Bytes; devices hold two int4 numbers in one."""
    return array.size // 2 if array.dtype == "int4" else array.nbytes


def status(field: str) -> int:
    """A size in bytes from /proc/self/status."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:")) * 1_024


if __name__ == "__main__":
    main()
