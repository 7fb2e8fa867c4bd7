"""The E5 recipe at 7B on machines from one chip to two slices: `e5jax plan` for each, as one table.

.venv/bin/python benchmarks/plan_7b.py [NAME ...] [--output=FILE]

2048 queries + 4096 passages of 512 tokens each, so that nothing is left to packing: the worst case. Two lines differ: the
pod has texts of 40 and 150 tokens on average, so that no chunk is encoded twice, and "32k rows" has 48 texts of 32,768 tokens.
`traffic` is what a chip receives over what the weights alone would be: 3 gathers of the base a chunk that is encoded again and
2 for one that is kept, times (n - 1) / n over fsdp = n, beside gradients and vectors. Each line takes minutes.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
PARAMETERS = {"frozen": 6_979_321_856, "trained": 41_943_040, "table": 32_000 * 4_096}
POD = (
    *("batch.chunks=48", "batch.kept_chunks=11", "batch.shards=128", "batch.texts_a_row=24"),
    *(
        "mesh.data=32",
        "mesh.fsdp=4",
        "mesh.tensor=2",
        "model.remat=attention",
        "model.quantisation=int8",
    ),
)
LONG = (
    *(
        "tokens.limit=32768",
        "batch.queries=16",
        "batch.chunks=3",
        "batch.shards=16",
        "batch.texts_a_row=1",
    ),
    "model.remat=nothing",
)
BYTES = {"none": 2, "int8": 1, "int4": 0.5}
CASES = {  # name: topology, slices, overrides, other options
    "v5e:4x4": ("v5e:4x4", 1, ("batch.chunks=48", "batch.shards=16")),
    "v5e:2x4": ("v5e:2x4", 1, ("batch.chunks=96", "batch.shards=8")),
    "v5e:2x2": ("v5e:2x2", 1, ("batch.chunks=384", "batch.shards=4")),
    "v4:2x2x1": ("v4:2x2x1", 1, ("batch.chunks=192", "batch.shards=8")),
    "v5p:2x2x1": ("v5p:2x2x1", 1, ("batch.chunks=48", "batch.shards=8")),
    "v6e:1x1": ("v6e:1x1", 1, ("batch.chunks=1536", "batch.shards=1", "batch.texts_a_row=2")),
    "v5e:1x1 int8": (
        "v5e:1x1",
        1,
        ("batch.chunks=1536", "batch.shards=1", "batch.texts_a_row=2", "model.quantisation=int8"),
    ),
    "v5e:1x1 int4": (
        "v5e:1x1",
        1,
        ("batch.chunks=1536", "batch.shards=1", "batch.texts_a_row=2", "model.quantisation=int4"),
    ),
    "2 × v5e:4x4": (
        "v5e:4x4",
        2,
        ("batch.chunks=24", "batch.shards=32", "mesh.data=2", "mesh.fsdp=16"),
    ),
    "v5e:16x16 int8, packed": ("v5e:16x16", 1, POD, "--lengths=40,150"),
    "v5e:4x4, 32k rows": ("v5e:4x4", 1, LONG),
}
COLUMNS = "{:<24}{:>8}{:>8}{:>8}{:>13}{:>9}{:>11}{:>11}{:>9}"


def main() -> None:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument(
        "names", nargs="*", metavar="NAME", help=f"of {', '.join(CASES)}; all without"
    )
    options.add_argument("--output", type=Path)
    args = options.parse_args()
    if unknown := sorted(set(args.names) - set(CASES)):
        options.error(f"{', '.join(unknown)}: known are {', '.join(CASES)}")
    print(
        COLUMNS.format(
            "machine",
            "GiB",
            "limit",
            "free",
            "FLOPs ratio",
            "traffic",
            "compute s",
            "network s",
            "step s",
        )
    )
    found = {}
    for name in args.names or CASES:
        found[name] = plan(*CASES[name])
        print(line(name, found[name]), flush=True)
    if args.output:
        args.output.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


def plan(topology: str, slices: int, overrides: tuple[str, ...], *options: str) -> dict:
    """What `e5jax plan --json` prints."""
    command = [
        sys.executable,
        "-m",
        "e5jax",
        "plan",
        "--config=configs/e5_mistral_7b.py",
        f"--topology={topology}",
    ]
    command += [
        f"--slices={slices}",
        "--json",
        *options,
        *(f"--config.{override}" for override in overrides),
    ]
    ran = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False)
    if not ran.stdout:
        raise SystemExit(f"{' '.join(command)} ended with {ran.returncode}")
    return json.loads(ran.stdout) | {"overrides": [*options, *overrides]}


def line(name: str, found: dict) -> str:
    """A row of the table."""
    memory = (
        f"{found['memory_bytes_per_chip'] / 2**30:.2f}",
        f"{found['memory_limit_bytes'] / 2**30:.2f}",
        f"{found['memory_free_share']:.1%}",
    )
    if not found["fits"]:
        return COLUMNS.format(name, *memory, "does not fit", *[""] * 4)
    seconds = (f"{found['seconds'][part]:.2f}" for part in ("compute", "network", "step"))
    return COLUMNS.format(name, *memory, f"{found['flops_ratio']:.3f}", traffic(found), *seconds)


def traffic(found: dict) -> str:
    """Bytes received over those of the formula; nothing where one chip is all, or where activations travel over `tensor` too."""
    n = found["mesh"]["fsdp"]
    if n == 1 or found["mesh"]["tensor"] > 1:
        return "-"
    gathers = 3 * found["chunks_encoded_again"]["used"] + 2 * found["chunks_kept"]["used"]
    weights = gathers * PARAMETERS["frozen"] * BYTES[found["quantisation"]] * (n - 1) / n
    rest = 2 * 4 * PARAMETERS["trained"] + 2 * PARAMETERS["table"] + 2 * 4 * 4_096 * found["texts"]
    return f"{found['collective_bytes_per_step'] / (weights + rest):.3f}"


if __name__ == "__main__":
    main()
