"""The E5 recipe at 7B on machines from one chip to two slices: `e5jax plan` for each, as one table.

.venv/bin/python benchmarks/plan_7b.py [NAME ...] [--output=FILE]

2048 queries + 4096 passages of 512 tokens each, so that nothing is left to packing: the worst case. Each line takes minutes.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
CASES = {  # name: topology, slices, overrides
    "v5e:4x4": ("v5e:4x4", 1, ("batch.chunks=48", "batch.shards=16")),
    "v5e:2x4": ("v5e:2x4", 1, ("batch.chunks=96", "batch.shards=8")),
    "v5e:2x2": ("v5e:2x2", 1, ("batch.chunks=384", "batch.shards=4")),
    "v4:2x2x1": ("v4:2x2x1", 1, ("batch.chunks=192", "batch.shards=8")),
    "v5p:2x2x1": ("v5p:2x2x1", 1, ("batch.chunks=48", "batch.shards=8")),
    "v6e:1x1": ("v6e:1x1", 1, ("batch.chunks=1536", "batch.shards=1", "batch.texts_a_row=2")),
    "v5e:1x1 int8": ("v5e:1x1", 1, ("batch.chunks=1536", "batch.shards=1", "batch.texts_a_row=2", "model.quantisation=int8")),
    "v5e:1x1 int4": ("v5e:1x1", 1, ("batch.chunks=1536", "batch.shards=1", "batch.texts_a_row=2", "model.quantisation=int4")),
    "2 × v5e:4x4": ("v5e:4x4", 2, ("batch.chunks=24", "batch.shards=32", "mesh.data=2", "mesh.fsdp=16")),
}
COLUMNS = "{:<14}{:>9}{:>9}{:>8}{:>12}{:>12}{:>12}{:>10}"


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(CASES)}; all without")
    options.add_argument("--output", type=Path)
    args = options.parse_args()
    if unknown := sorted(set(args.names) - set(CASES)):
        options.error(f"{', '.join(unknown)}: known are {', '.join(CASES)}")
    print(COLUMNS.format("machine", "GiB", "limit", "free", "FLOPs ratio", "compute s", "network s", "step s"))
    found = {}
    for name in args.names or CASES:
        found[name] = plan(*CASES[name])
        print(line(name, found[name]), flush=True)
    if args.output:
        args.output.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


def plan(topology: str, slices: int, overrides: tuple[str, ...]) -> dict:
    """What `e5jax plan --json` prints."""
    command = [sys.executable, "-m", "e5jax", "plan", "--config=configs/e5_mistral_7b.py", f"--topology={topology}"]
    command += [f"--slices={slices}", "--json", *(f"--config.{override}" for override in overrides)]
    ran = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False)
    if not ran.stdout:
        raise SystemExit(f"{' '.join(command)} ended with {ran.returncode}")
    return json.loads(ran.stdout) | {"overrides": overrides}


def line(name: str, found: dict) -> str:
    """A row of the table."""
    memory = (
        f"{found['memory_bytes_per_chip'] / 2**30:.2f}",
        f"{found['memory_limit_bytes'] / 2**30:.2f}",
        f"{found['memory_free_share']:.1%}",
    )
    if not found["fits"]:
        return COLUMNS.format(name, *memory, "does not fit", "", "", "")
    seconds = found["seconds"]
    return COLUMNS.format(
        name, *memory, *(f"{x:.2f}" for x in (found["flops_ratio"], seconds["compute"], seconds["network"], seconds["step"]))
    )


if __name__ == "__main__":
    main()
