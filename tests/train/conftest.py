"""Runs of one shape share their step: each `train` makes its own, and compiling it is most of a run this small."""

from copy import deepcopy
from dataclasses import replace

import pytest

from e5jax.config import Checkpoint, Data, Export, Log, Probe, Profile, Training
from e5jax.model.spec import Spec
from e5jax.train import loop
from e5jax.train.build import TrainStep, build_step

# What a run has that `build_step` does not read.
REST = {
    "data": Data(),
    "checkpoint": Checkpoint(),
    "log": Log(),
    "profile": Profile(),
    "probe": Probe(),
    "export": Export(),
}
LEARNERS: dict[str, TrainStep] = {}


def shared(run: Training, spec: Spec, platform: str) -> TrainStep:
    """`build_step`, once for all runs that are alike in what it reads."""
    alike = replace(run, **REST)
    key = repr((alike, spec, platform))
    if key not in LEARNERS:
        LEARNERS[key] = build_step(deepcopy(alike), spec, platform)  # tests change their runs
    return LEARNERS[key]


@pytest.fixture(autouse=True)
def _shared_steps(monkeypatch):
    monkeypatch.setattr(loop, "build_step", shared)
