"""What the runs of the harness are made of: a tiny Mistral with LoRA, a few examples, and the numbers a finished run is known by.

`python -m tests.faults.material make BASE` makes it; `… digest BASE RUN …` and `… difference BASE RUN RUN` print lines of JSON.
"""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

os.environ.setdefault("XLA_FLAGS", "--xla_force_host_platform_device_count=8")

import jax
import numpy as np

from e5jax.checkpoint.checkpointer import Checkpoints
from e5jax.config import Batch, Data, Model, Scratch, Tokens, Training
from e5jax.config.load import load
from e5jax.data.records import Example
from e5jax.data.tokenizer import train_tokenizer
from e5jax.export.folder import export_untrained
from e5jax.mesh import make_mesh
from e5jax.pipeline import inputs_of
from e5jax.train.build import abstract_arguments, build_step
from e5jax.train.inputs import read_inputs
from e5jax.train.loop import restore
from e5jax.train.state import State
from e5jax.workdir.directory import Workdir

ROOT = Path(__file__).parents[2]
WORDS = [
    "read",
    "write",
    "open",
    "close",
    "parse",
    "file",
    "header",
    "line",
    "token",
    "model",
    "batch",
    "step",
    "loss",
    "rate",
]
PAIRS = 200
EVERY = 5  # steps from one checkpoint to the next
CONFIG = """
from e5jax.config import *
def get_config():
    return Config(
        stages=("train", "export"),
        data=Data(files=("{root}/train.jsonl",)),
        tokens=Tokens(limit=16),
        model=Model(base="{root}/base", dtype="float32"),
        lora=Lora(rank=4, alpha=8.0, dropout=0.1),
        batch=Batch(queries=16, negatives=1, chunks=2, shards=8),
        optim=Optim(learning_rate=1e-3, steps=60, warmup_steps=5),
        mesh=Mesh(data=-1, fsdp=1, tensor=1),
        checkpoint=Checkpoint(every={every}, keep=3),
        log=Log(tensorboard=False),
        export=Export(dtype="float32"),
        watchdog=Watchdog(step=60, start=120, silence=10),
    )
"""


class Found(NamedTuple):
    """What a run has come to: its last step, a hash of parameters, moments and counters, one of what was exported, and losses."""

    step: int
    state: str
    exported: str
    losses: list[float]


def make(root: Path) -> None:
    """Writes `train.jsonl`, `tokenizer.json`, `base/` and `config.py`."""
    root.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(0)
    texts = [" ".join(random.choice(WORDS, 6)) for _ in range(3 * PAIRS)]
    train_tokenizer(texts, 300).save(str(root / "tokenizer.json"))
    thirds = zip(*(texts[PAIRS * i : PAIRS * (i + 1)] for i in range(3)), strict=True)
    examples = [
        Example(str(i), query, (positive,), (negative,), "find it")
        for i, (query, positive, negative) in enumerate(thirds)
    ]
    (root / "train.jsonl").write_text(
        "".join(example.to_json() + "\n" for example in examples), encoding="utf-8"
    )
    sizes = Scratch(hidden=64, ff=128, layers=2, heads=4, kv_heads=2, head_size=16)
    scratch = Training(
        data=Data(files=(str(root / "train.jsonl"),)),
        tokens=Tokens(tokenizer=str(root / "tokenizer.json"), limit=16),
        model=Model(scratch=sizes, dtype="float32"),
        batch=Batch(queries=16),
    )
    inputs = read_inputs(scratch, scratch.data.files, Path(scratch.tokens.tokenizer), "")
    export_untrained(scratch, inputs.spec, inputs.tokenizer, root / "base")
    (root / "config.py").write_text(CONFIG.format(root=root, every=EVERY), encoding="utf-8")


def state_of(root: Path, workdir: Path) -> tuple[int, State]:
    """The step of a run's newest checkpoint, and what is in it, as arrays of NumPy."""
    config = load(str(root / "config.py"), [])
    inputs = inputs_of(config, Workdir(workdir))
    mesh = make_mesh(config.mesh)
    with jax.set_mesh(mesh), Checkpoints(workdir / "checkpoints") as checkpoints:
        step = checkpoints.newest()
        assert step is not None, workdir
        wanted, _, _ = abstract_arguments(config, build_step(config, inputs.spec, "cpu"), mesh)
        return step, jax.tree.map(np.asarray, restore(checkpoints, step, wanted))


def digest(root: Path, workdir: Path) -> Found:
    """What a run has come to."""
    step, state = state_of(root, workdir)
    sha = hashlib.sha256()
    for leaf in jax.tree.leaves(state):
        sha.update(np.ascontiguousarray(leaf).tobytes())
    rows = _rows(workdir)
    assert [row["step"] for row in rows] == list(range(1, step + 1)), workdir
    exported = hashlib.sha256((workdir / "export" / "model.safetensors").read_bytes()).hexdigest()
    return Found(step, sha.hexdigest(), exported, [row["train/loss"] for row in rows])


def difference(root: Path, first: Path, second: Path) -> dict:
    """How far two runs are apart in parameters and moments: the largest difference relative to the largest value of its tensor."""
    (step, one), (other, two) = state_of(root, first), state_of(root, second)
    apart = jax.tree.map(
        lambda a, b: float(np.max(np.abs(a - b)) / np.max(np.abs(a))) if a.ndim else 0.0, one, two
    )
    trained, rest = (
        max(jax.tree.leaves(part)) for part in (apart.parameters, apart._replace(parameters={}))
    )
    hashes = [[row.get("batch") for row in _rows(run)] for run in (first, second)]
    same, hashed = hashes[0] == hashes[1], hashes[0][-1] is not None
    return {
        "steps": [step, other],
        "apart": trained,
        "moments": rest,
        "batches": same,
        "hashes": hashed,
    }


def _rows(workdir: Path) -> list[dict]:
    return [
        json.loads(line)
        for line in (workdir / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    ]


def in_another_process(action: str, *paths: Path) -> list[str]:
    """The lines that an action of this module prints; here JAX may be in use, or must not be."""
    environment = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "--xla_force_host_platform_device_count=8",
    }
    command = [sys.executable, "-m", "tests.faults.material", action, *map(str, paths)]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=600,
    )
    return done.stdout.splitlines()


def main(action: str, root: str, *workdirs: str) -> None:
    """Does what the command line asks."""
    if action == "make":
        make(Path(root))
    if action == "difference":
        print(json.dumps(difference(Path(root), *map(Path, workdirs))), flush=True)
        return
    for workdir in workdirs:
        print(json.dumps(digest(Path(root), Path(workdir))._asdict()), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
