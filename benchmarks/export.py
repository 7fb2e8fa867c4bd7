"""Host memory of exporting a fully trained model: from a checkpoint that eight devices wrote, by one process of one device.

.venv/bin/python benchmarks/export.py [--layers=8] [--hidden=4096] [--ff=14336] [--output=FILE]

Writes a checkpoint of random float32 parameters, spread over eight simulated devices, 7.5 GB by default, and exports it in a
process of its own for each row: `--no-verify`, and with all looks. `peak` is the most that this process held (`VmHWM` of
Linux) above what it held before; `largest` is the largest tensor in float32, of which the export holds one at a time.
"""

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import jax
from loading import status

from e5jax.checkpoint.checkpointer import Checkpoints
from e5jax.checkpoint.retention import Retention
from e5jax.config import Data, Export, Mesh, Model, Scratch, Tokens, Training
from e5jax.data.tokenizer import TextTokenizer, train_tokenizer
from e5jax.export.folder import export
from e5jax.export.trained_model import Choice
from e5jax.mesh import make_mesh
from e5jax.model.model_def import model_def
from e5jax.model.spec import Spec
from e5jax.workdir.directory import Workdir

WORDS = "read a file, parse each line of it and write what was found"
COLUMNS = ("looks", "parameter_bytes", "largest_bytes", "peak_bytes", "seconds")
VOCABULARY = 32_000


def main() -> None:
    """Measures, prints a table, writes JSON."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name, size in {"layers": 8, "hidden": 4_096, "ff": 14_336}.items():
        options.add_argument(f"--{name}", type=int, default=size)
    options.add_argument(
        "--folder", type=Path, help="where there is room (default: the temporary one)"
    )
    options.add_argument("--output", type=Path)
    options.add_argument(
        "--do", nargs=2, metavar=("WHAT", "FOLDER"), help="one part, in this process"
    )
    args = options.parse_args()
    if args.do:
        what, folder = args.do[0], Path(args.do[1])
        print(
            json.dumps(
                save(folder, spec_of(args)) if what == "save" else read(folder, spec_of(args), what)
            )
        )
        return
    sizes = [f"--{name}={getattr(args, name)}" for name in ("layers", "hidden", "ff")]
    with tempfile.TemporaryDirectory(dir=args.folder) as place:
        run("save", place, sizes, devices=8)
        rows = [run(looks, place, sizes, devices=1) for looks in ("none", "all")]
    print("".join(f"{name:<18}" for name in COLUMNS))
    for row in rows:
        print(
            "".join(
                f"{row[name] / 1e9 if name.endswith('bytes') else row[name]:<18.4}"
                for name in COLUMNS
            )
        )
    if args.output:
        args.output.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


def run(what: str, place: str, sizes: list[str], devices: int) -> dict:
    """A part in a process of its own."""
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
    }
    done = subprocess.run(
        [sys.executable, __file__, *sizes, "--do", what, place],
        env=environment,
        check=True,
        stdout=subprocess.PIPE,
    )
    return json.loads(done.stdout.splitlines()[-1])


def spec_of(args: argparse.Namespace) -> Spec:
    heads = args.hidden // 128
    return Spec(
        "mistral",
        VOCABULARY,
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


def save(folder: Path, spec: Spec) -> dict:
    """A checkpoint as training leaves it, but for the moments."""
    made = model_def(spec, None, dtype="bfloat16", remat="nothing", kernel="xla")
    mesh = make_mesh(Mesh())
    with jax.set_mesh(mesh), Checkpoints(folder / "checkpoints", Retention(1)) as checkpoints:
        checkpoints.save(
            1, made.initialise(made.trained, mesh, 0), {"step": jax.numpy.ones(())}, {}
        )
    return {}


def read(folder: Path, spec: Spec, looks: str) -> dict:
    """Exports it and says what that took."""
    sizes = Scratch(
        hidden=spec.hidden,
        ff=spec.ff,
        layers=spec.layers,
        heads=spec.heads,
        kv_heads=spec.kv_heads,
        head_size=128,
    )
    made = Training(
        data=Data(files=("train.jsonl",)),
        tokens=Tokens(limit=512),
        model=Model(scratch=sizes),
        export=Export(),
    )
    tokenizer = TextTokenizer(train_tokenizer([WORDS] * 3, 300), 1, 2, 512)
    tensors = model_def(spec, None, dtype="bfloat16", remat="nothing", kernel="xla").leaves
    layer = [
        leaf.shape[1:] if name.startswith("layers/") else leaf.shape
        for name, leaf in tensors.items()
    ]
    jax.device_put(1.0).block_until_ready()
    before, start = status("VmRSS"), time.perf_counter()
    export(
        made,
        None,
        spec,
        tokenizer,
        Workdir(folder),
        folder / f"export-{looks}",
        Choice(verify=looks == "all"),
    )
    figures = (
        looks,
        sum(4 * math.prod(leaf.shape) for leaf in tensors.values()),
        max(4 * math.prod(shape) for shape in layer),
        status("VmHWM") - before,
        round(time.perf_counter() - start, 1),
    )
    return dict(zip(COLUMNS, figures, strict=True))


if __name__ == "__main__":
    main()
