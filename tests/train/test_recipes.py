"""Every recipe of a 7B model takes three steps here: its own objective, batches and pooling on a tiny model and a few sets."""

from pathlib import Path

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file

from e5jax.checkpoint.checkpointer import Checkpoints
from e5jax.config import Checkpoint, Config, Log, Mesh
from e5jax.config.load import load
from e5jax.config.mixture import Dataset
from e5jax.export.folder import export
from e5jax.export.trained_model import Choice
from e5jax.train import loop
from e5jax.train.build import build_step
from e5jax.train.inputs import Inputs
from e5jax.train.temperature import NAME
from e5jax.workdir.directory import Workdir
from tests import tiny
from tests.config.test_load import RUNS
from tests.train.test_loop import inputs_for, place, rows  # noqa: F401  a fixture

RECIPES = [path for path in RUNS if Path(path).stem not in ("quickstart", "passkey")]
WIDTH = 32  # of the tiny model


def shrunk(config: Config, root: Path) -> Config:
    """What the recipe says, of another size."""
    sets = list(config.data.mixture.datasets.items())[:2]
    files = (str(root / "train.jsonl"),)
    config.data.mixture.datasets = {
        name: Dataset(files, instructions=of.instructions) for name, of in sets
    }
    config.data.workers = 0
    config.model.base, config.model.dtype = str(root / "base"), "float32"
    config.tokens.limit = 16
    config.batch.queries, config.batch.negatives, config.batch.row_tokens = (
        8,
        min(config.batch.negatives, 1),
        0,
    )
    config.batch.chunks, config.batch.shards = 2, 8
    config.batch.positives = 2  # places, of which the examples fill one
    config.loss.dimensions = tuple(
        size for size in (WIDTH, WIDTH // 2, WIDTH // 4) if config.loss.dimensions
    )
    config.optim.steps, config.optim.warmup_steps = 3, 1
    config.mesh, config.checkpoint, config.log = (
        Mesh(data=8, fsdp=1, tensor=1),
        Checkpoint(every=9),
        Log(tensorboard=False),
    )
    return config


def test_a_learned_temperature_is_kept_and_its_export_does_without(place, tmp_path):  # noqa: F811  the fixture
    run = shrunk(load(RECIPES[0]), place)
    run.loss.bounds, run.checkpoint.every = (0.005, 0.5), 2
    inputs, workdir = inputs_for(run), Workdir(tmp_path / "run")
    loop.train(run, inputs, workdir, "recipe")
    with Checkpoints(workdir.checkpoints_of(run.checkpoint)) as checkpoints:
        found = checkpoints.open_parameters(
            3, {NAME: jax.ShapeDtypeStruct((), "float32")} | abstract_of(run, inputs)
        )
    assert float(np.asarray(found[NAME])) != 0
    export(
        run,
        inputs.base,
        inputs.spec,
        inputs.tokenizer,
        workdir,
        tmp_path / "export",
        Choice(verify=False),
    )
    assert not any(
        "temperature" in name for name in load_file(tmp_path / "export/model.safetensors")
    )


def abstract_of(run: Config, inputs: Inputs) -> dict[str, jax.ShapeDtypeStruct]:
    made = build_step(run, inputs.spec, "cpu").model_def
    return made.abstract(made.trained, tiny.mesh(1, 1, 1), "float32")


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: Path(path).stem)
def test_a_recipe_takes_its_steps(path, place, tmp_path):  # noqa: F811  the fixture
    run = shrunk(load(path), place)
    loop.train(run, inputs_for(run), Workdir(tmp_path / "run"), "recipe")
    assert [row["step"] for row in rows(tmp_path / "run")] == [1, 2, 3]
    assert all(0 < row["train/loss"] < 100 for row in rows(tmp_path / "run"))
