"""Estimates against the compiler's figures for 7B, real parameters and real packing."""

import math

import pytest

from e5jax.config import Batch, Lora, Model, Tokens, Training
from e5jax.config.load import load
from e5jax.model.model_def import model_def
from e5jax.plan.estimate import (
    Guess,
    Problem,
    adapters,
    base_bytes,
    filled,
    guess,
    least_memory,
    used_chunks,
)
from e5jax.plan.fill import Means, expected
from e5jax.plan.setting import Setting
from e5jax.plan.shape import MISTRAL_7B
from tests import tiny
from tests.config.test_load import PAPER
from tests.plan.chips import machine

GIB = 2**30
LONG = ("tokens.limit=32768", "batch.queries=16", "batch.texts_a_row=1")


def problem(run, spec=MISTRAL_7B, means=None, shards=(1, 2, 4, 8, 16, 32, 64, 128)):
    return Problem(run, spec, machine(), math.inf, filled(run, means, shards))


# libtpu 0.0.42's peaks of a chip, all but the seventh (a bfloat16 base on one chip) from benchmarks/results/plan_7b.md.
@pytest.mark.parametrize(
    ("one", "changes", "peak"),
    [
        (Setting(1, 16, 1, 48, "projections"), (), 13.33),
        (Setting(1, 8, 1, 96, "projections"), (), 14.24),
        (Setting(1, 1, 1, 1_536, "projections"), ("batch.texts_a_row=2",), 20.22),
        (Setting(1, 1, 1, 1_536, "projections", "int8"), ("batch.texts_a_row=2",), 13.57),
        (Setting(1, 1, 1, 1_536, "projections", "int4"), ("batch.texts_a_row=2",), 10.72),
        (Setting(32, 4, 2, 48, "attention", "int8", 11), ("batch.texts_a_row=24",), 11.01),
        (Setting(1, 1, 1, 6_144, "nothing"), (), 15.45),
        (Setting(1, 16, 1, 3, "nothing"), LONG, 15.11),
    ],
    ids=str,
)
def test_the_least_memory_is_below_what_the_compiler_needs_and_not_far_below(one, changes, peak):
    least = (
        least_memory(one, problem(load(PAPER, [f"--config.{change}" for change in changes]))) / GIB
    )
    assert 0.55 * peak < least < peak


@pytest.mark.parametrize("kind", ["none", "int8", "int4"])
def test_bytes_of_base_and_adapters_are_those_of_the_parameters(kind):
    spec = tiny.SPEC._replace(hidden=256, ff=384, heads=8, head_size=32)
    lora = Lora(rank=4, targets=("q", "v", "down"))
    made = model_def(spec, lora, dtype="bfloat16", remat="nothing", kernel="xla", quantisation=kind)
    sizes = {name: math.prod(leaf.shape) for name, leaf in made.leaves.items()}
    bits = {"int8": 8, "int4": 4, "float32": 32, None: 16}
    stored = sum(
        sizes[name] * bits[made.leaves[name].dtype] / 8 for name in made.frozen if "/kernel" in name
    )
    assert base_bytes(spec, kind, 2) == pytest.approx(stored, rel=1e-12)
    assert adapters(Training(lora=lora), spec) == sum(sizes[name] for name in made.trained)


@pytest.mark.parametrize("shards", [1, 4])
@pytest.mark.parametrize("chunks", [1, 3, 12, 24])
@pytest.mark.parametrize("means", [Means(5, 8), Means(30, 60)])
def test_chunks_with_text_are_those_of_the_expected_batch(shards, chunks, means):
    batch = Batch(queries=64, negatives=1, chunks=chunks, texts_a_row=6, shards=shards)
    run = Training(batch=batch, tokens=Tokens(limit=64), lora=Lora())
    one = Setting(shards, 1, 1, chunks, "nothing")
    fill = expected(batch, 64, means)
    assert (
        used_chunks(one, problem(run, means=means, shards=[shards]))
        == fill.kept.used + fill.again.used
    )


def test_a_kept_chunk_saves_a_forward_pass_and_a_gather():
    of = problem(load(PAPER))
    weights = base_bytes(MISTRAL_7B, "int8", 2) * 15 / 16
    tokens = 6_144 * 512 / 48
    for kept in (0, 5, 48):
        found = guess(Setting(1, 16, 1, 48, "everything", "int8", kept), of)
        passes = 48 * (1 + 1) + (48 - kept)
        assert found.compute == pytest.approx(
            2 * tokens * MISTRAL_7B.matrix_parameters * passes / 4 / of.on.chip.flops
        )
        assert found.network == pytest.approx(
            (2 * kept + 3 * (48 - kept)) * weights / of.on.chip.interconnect
        )


def test_chunks_without_text_cost_nothing():
    run, one = load(PAPER), Setting(1, 16, 1, 48, "projections")
    full, short = problem(run), problem(run, means=Means(40, 150), shards=[16])
    used = used_chunks(one, short)
    assert 0 < used < 48
    assert guess(one, short) == pytest.approx([part * used / 48 for part in guess(one, full)])
    # A single chunk holds all rows, with text or without.
    assert guess(one._replace(chunks=1), short) == guess(one._replace(chunks=1), full)


def test_the_number_of_chunks_alone_changes_no_flops():
    of = problem(load(PAPER))
    assert (
        len(
            {
                guess(Setting(1, 1, 1, chunks, "projections"), of).compute
                for chunks in (2, 3, 6, 48, 1_536, 6_144)
            }
        )
        == 1
    )


def test_full_fine_tuning_stores_four_numbers_for_each_parameter():
    run = Training(
        model=Model(dtype="bfloat16"), batch=Batch(queries=16, chunks=16), tokens=Tokens(limit=8)
    )
    numbers = tiny.SPEC.matrix_parameters + tiny.SPEC.vocab * tiny.SPEC.hidden
    least = least_memory(Setting(1, 1, 1, 16, "nothing"), problem(run, tiny.SPEC))
    assert 16 * numbers < least < 17.0 * numbers


@pytest.mark.parametrize(
    ("one", "other", "slower"),
    [
        (Guess(2, 1), Guess(2, 1), True),
        (Guess(3, 1), Guess(2, 2), False),
        (Guess(4, 1), Guess(2, 2), True),  # 4 at best against 4 at worst
        (Guess(1, 4), Guess(2, 2), True),
    ],
)
def test_what_takes_longer_at_best_than_another_at_worst_is_slower(one, other, slower):
    assert one.no_faster_than(other) is slower
