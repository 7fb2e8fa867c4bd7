"""What looking after a healthy run costs: the guard in the step, batch hashes, checkpoints with their manifests.

.venv/bin/python benchmarks/overhead.py [--rounds=40] [--output=FILE]

Shapes are those of the two trainings of configs/quickstart.py, texts are random ids of the lengths that texts have there, on
this CPU. The guard is measured in pairs: a step with it and one without, from the same state on the same batch, which of
them first in turn; its cost is the median of the pairs' differences, in seconds and in seconds of all cores (which others at
work on the machine disturb less), and both must leave the same bits. What the host does
beside a step is timed alone and set against the step. A checkpoint is spread over the steps from one to the next
(`checkpoint.every`, 100 by default): all that it takes, until its manifest is on the disk. With `checkpoint.background=True`
a run waits less.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np

from e5jax.checkpoint.checkpointer import Checkpoints
from e5jax.checkpoint.retention import Retention
from e5jax.config import Checkpoint, Training
from e5jax.config.load import load
from e5jax.data.packing import digest, layout, pack
from e5jax.data.records import Batch, Ids
from e5jax.distributed.signals import Signals
from e5jax.mesh import make_mesh, open_cpu
from e5jax.model.spec import Spec
from e5jax.train import state as states
from e5jax.train import step as steps
from e5jax.train.build import abstract_arguments, build_step, put_batch
from e5jax.train.loop import save
from e5jax.train.state import State

CONFIG = Path(__file__).parents[1] / "configs" / "quickstart.py"
EVERY = Checkpoint().every
QUERY, PASSAGE = (18, 8), (50, 16)  # tokens: mean and standard deviation


def main() -> None:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--rounds", type=int, default=40)
    options.add_argument("--output", type=Path)
    args = options.parse_args()
    config = load(str(CONFIG))
    assert config.pretrain is not None, "the quickstart has two stages"
    assert config.pretrain.model.scratch is not None, "the first from scratch"
    open_cpu([config, config.pretrain])
    sizes = config.pretrain.model.scratch
    spec = Spec(
        "mistral",
        config.pretrain.tokens.vocabulary,
        *(sizes.hidden, sizes.ff, sizes.layers, sizes.heads, sizes.kv_heads, sizes.head_size),
        *(1e4, None, 1e-5, 1, 2),
    )
    found = {
        name: measure(run, spec, args.rounds)
        for name, run in [("from scratch", config.pretrain), ("LoRA", config)]
    }
    for name, row in found.items():
        print(f"\n{name}\n" + "\n".join(f"{key:<44}{value:>12.6g}" for key, value in row.items()))
    if args.output:
        args.output.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


def measure(run: Training, spec: Spec, rounds: int) -> dict[str, float]:
    """Seconds, and shares of a step."""
    batch, mesh = random_batch(run, spec), make_mesh(run.mesh)
    with jax.set_mesh(mesh):
        guarded, plain = program(run, spec, mesh), unguarded(run, spec, mesh)
        learner = build_step(run, spec, jax.default_backend())
        numbers = learner.model_def.initialise(learner.model_def.leaves, mesh, 0)
        frozen = {name: numbers[name] for name in learner.model_def.frozen}
        state = states.fresh(
            {name: numbers[name] for name in learner.model_def.trained}, learner.optimiser, mesh
        )
        placed = put_batch(batch, mesh)
        both = [partial(timed, way, state, frozen, placed) for way in (guarded, plain)]
        same_bits(*(way()[1] for way in both))
        pairs = []
        for number in range(rounds):
            taken = {which: both[which]()[0] for which in ((0, 1), (1, 0))[number % 2]}
            pairs.append((taken[0], taken[1]))
        found: dict[str, float] = {}
        for kind in ("", " (cores)"):
            which = int(bool(kind))
            away = [a[which] - b[which] for a, b in pairs]
            low, middle, high = statistics.quantiles(away, n=4)
            found[f"step{kind}"] = statistics.median(b[which] for _, b in pairs)
            found |= {
                f"guard{kind}": middle,
                f"guard{kind}, lower quartile": low,
                f"guard{kind}, upper quartile": high,
            }
        found["batch hash"] = statistics.median(repeat(lambda: digest(batch), rounds))
        found |= dict(
            zip(
                ("checkpoint in the background, loop waits", "checkpoint, all of it"),
                checkpoint(state, 9),
                strict=True,
            )
        )
        signals = Signals()
        with Checkpoints(Path(tempfile.gettempdir())) as checkpoints:
            found["looking for notices and failures"] = statistics.median(
                repeat(lambda: (checkpoints.poll(), signals.received), 99)
            )
    beside = found["batch hash"] + found["looking for notices and failures"]
    found["guard, share of a step"] = found["guard"] / found["step"]
    found["guard (cores), share of a step"] = found["guard (cores)"] / found["step (cores)"]
    found["beside the step, share"] = beside / found["step"]
    found[f"checkpoint every {EVERY}, share"] = (
        found["checkpoint, all of it"] / EVERY / found["step"]
    )
    found["all, share"] = (
        found["guard"] + beside + found["checkpoint, all of it"] / EVERY
    ) / found["step"]
    return found


def program(run: Training, spec: Spec, mesh: jax.sharding.Mesh) -> jax.stages.Compiled:
    learner = build_step(run, spec, jax.default_backend())
    return learner.step.lower(*abstract_arguments(run, learner, mesh)).compile()


def unguarded(run: Training, spec: Spec, mesh: jax.sharding.Mesh) -> jax.stages.Compiled:
    """The step whose every update is made; the compiler drops the choice."""
    with mock.patch.object(steps, "judge", lambda _, watch, *__: (True, jnp.ones((), bool), watch)):
        return program(run, spec, mesh)


def timed(
    way: jax.stages.Compiled, state: State, frozen: Any, batch: Batch
) -> tuple[tuple[float, float], State]:
    """Seconds, seconds of all cores, and what comes out."""
    given = jax.block_until_ready(jax.tree.map(jnp.copy, state))  # a step takes its state away
    begin, worked = time.perf_counter(), time.process_time()
    after, metrics = way(given, frozen, batch)
    jax.block_until_ready((after, metrics))
    return (time.perf_counter() - begin, time.process_time() - worked), after


def same_bits(one: State, other: State) -> None:
    pairs = zip(
        jax.tree.leaves(one._replace(watch=())),
        jax.tree.leaves(other._replace(watch=())),
        strict=True,
    )
    assert all(np.asarray(a).tobytes() == np.asarray(b).tobytes() for a, b in pairs), (
        "the guard has changed a number"
    )


def repeat(go: Callable[[], object], times: int) -> list[float]:
    found = []
    for _ in range(times):
        begin = time.perf_counter()
        go()
        found.append(time.perf_counter() - begin)
    return found


def checkpoint(state: State, times: int) -> tuple[float, float]:
    """Seconds that the loop waits for a save to begin, and until it is verified on the disk."""
    waits, whole = [], []
    with (
        tempfile.TemporaryDirectory() as folder,
        Checkpoints(Path(folder), Retention(2), background=True) as checkpoints,
    ):
        for number in range(1, times + 1):
            begin = time.perf_counter()
            save(checkpoints, number, state, {})
            waits.append(time.perf_counter() - begin)
            checkpoints.finish()
            whole.append(time.perf_counter() - begin)
    return statistics.median(waits), statistics.median(whole)


def random_batch(run: Training, spec: Spec) -> Batch:
    random, limit = np.random.default_rng(0), run.tokens.limit

    def text(mean: float, deviation: float) -> list[int]:
        length = int(np.clip(random.normal(mean, deviation), 3, limit))
        return [1, *random.integers(3, spec.vocab, length - 2).tolist(), 2]

    passages = 1 + run.batch.negatives
    one = [
        Ids(text(*QUERY), [text(*PASSAGE) for _ in range(passages)], 0.02, True)
        for _ in range(run.batch.queries)
    ]
    return pack(one, layout(run.batch, limit))


if __name__ == "__main__":
    main()
