"""Which settings there are, and how they are typed."""

import dataclasses
import math

import pytest

from e5jax.config import Lora, Model, Training
from e5jax.config.load import load
from e5jax.plan.setting import Setting, precisions, remats, settings
from e5jax.plan.shape import MISTRAL_7B
from tests.config.test_load import PAPER
from tests.plan.chips import machine

CHIPS = machine().topology


def test_settings_divide_batch_and_model():
    found = list(settings(load(PAPER), MISTRAL_7B, CHIPS, "none"))
    assert len(set(found)) == len(found)
    for one in found:
        assert math.prod(one[:3]) == 4
        assert 6_144 % one.chunks == 0
        assert 6_144 // one.chunks % (one.data * one.fsdp) == 0


def test_groups_of_int4_divide_over_the_mesh():
    spec = MISTRAL_7B._replace(ff=128 * 6)
    tensors = {
        kind: {one.tensor for one in settings(load(PAPER), spec, CHIPS, kind)}
        for kind in ("none", "int8", "int4")
    }
    assert tensors == {"none": {1, 2, 4}, "int8": {1, 2, 4}, "int4": {1, 2}}


def test_the_first_setting_is_the_runs_own():
    changes = [
        "--config.batch.chunks=96",
        "--config.batch.kept_chunks=5",
        "--config.mesh.data=2",
        "--config.model.remat=attention",
    ]
    every = list(settings(load(PAPER, changes), MISTRAL_7B, CHIPS, "int8"))
    assert every[0] == Setting(2, 2, 1, 96, "attention", "int8", 5)
    assert every.count(every[0]) == 1
    elsewhere = list(settings(load(PAPER, ["--config.mesh.data=8"]), MISTRAL_7B, CHIPS, "none"))
    assert all(math.prod(one[:3]) == 4 for one in elsewhere)


def test_slices_divide_the_data_axis():
    assert {
        one.data for one in settings(load(PAPER), MISTRAL_7B, CHIPS._replace(slices=2), "none")
    } == {2, 4, 8}


def test_overrides_are_the_setting():
    one = Setting(2, 4, 2, 96, "attention", "int8", 7)
    run = load(PAPER, one.overrides)
    assert dataclasses.astuple(run.mesh) == (2, 4, 2)
    assert (run.batch.chunks, run.batch.shards, run.batch.kept_chunks) == (96, 8, 7)
    assert (run.model.remat, run.model.quantisation) == ("attention", "int8")


@pytest.mark.parametrize(
    ("run", "overrides", "expected"),
    [
        (Training(lora=Lora()), [], ("none", "int8", "int4")),
        (Training(lora=Lora()), ["--config.model.quantisation=none"], ("none",)),
        (Training(lora=Lora(), model=Model(quantisation="int8")), [], ("int8",)),
        (Training(lora=None), [], ("none",)),
    ],
)
def test_precision_is_searched_beside_adapters_and_only_where_none_is_asked_for(
    run, overrides, expected
):
    assert precisions(run, overrides) == expected


@pytest.mark.parametrize(
    ("kernel", "platform", "there"),
    [("auto", "tpu", False), ("auto", "cpu", True), ("blockwise", "tpu", True)],
)
def test_attention_is_kept_apart_only_by_the_kernel_that_can(kernel, platform, there):
    found = remats(Training(model=Model(attention=kernel)), platform)
    assert ("attention" in found) is there
    assert {"nothing", "projections", "everything"} < {*found, "attention"}
