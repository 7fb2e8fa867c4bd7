"""Memory is the compiler's, and its parts are those of the step's arguments."""

import jax
import pytest

from e5jax.config import Batch, Lora, Mesh, Model, Optim, Tokens, Training
from e5jax.errors import ConfigError
from e5jax.hardware import Chip
from e5jax.mesh import make_mesh
from e5jax.plan.machine import Machine
from e5jax.plan.report import plan, refused
from e5jax.plan.summary import to_json
from e5jax.plan.table import table
from e5jax.plan.topology import parse_topology
from e5jax.train.build import abstract_arguments, build_step
from e5jax.train.flops import model_flops
from tests import tiny

CHIP = Chip(1e9, 1e9, 1e9, 1e9, 1e9, 1e9)
RUN = Training(
    model=Model(dtype="float32", remat="projections"),
    tokens=Tokens(limit=8),
    lora=Lora(rank=4, dropout=0.1),
    batch=Batch(queries=16, negatives=1, chunks=2, shards=4),
    optim=Optim(steps=10, warmup_steps=1),
    mesh=Mesh(2, 2, 1),
)


def machine(chip: Chip = CHIP) -> Machine:
    return Machine(parse_topology("cpu:4"), jax.devices()[:4], chip, "measured")


@pytest.fixture(scope="module")
def report():
    return plan(RUN, tiny.SPEC, machine())


def test_memory_is_what_the_compiler_says(report):
    mesh, learner = make_mesh(RUN.mesh, jax.devices()[:4]), build_step(RUN, tiny.SPEC, "cpu")
    with jax.set_mesh(mesh):
        said = (
            learner.step.lower(*abstract_arguments(RUN, learner, mesh)).compile().memory_analysis()
        )
    assert report.memory["arguments"] == said.argument_size_in_bytes
    assert report.memory["temporaries"] == said.temp_size_in_bytes
    assert report.memory["outputs"] == said.output_size_in_bytes
    # A CPU program holds all its buffers at once.
    held = (
        said.argument_size_in_bytes
        + said.temp_size_in_bytes
        + said.output_size_in_bytes
        - said.alias_size_in_bytes
    )
    assert report.memory["peak"] == held


def test_arguments_are_base_trained_moments_and_batch(report):
    parts = [report.memory[kind] for kind in ("base", "trained", "moments", "batch")]
    assert (
        sum(parts) + 4 * (1 + 7) == report.memory["arguments"]
    )  # the step's number, and what the guard remembers


def test_it_fits_up_to_the_limit_and_not_beyond(report):
    peak = report.memory["peak"]
    assert report._replace(machine=machine(CHIP._replace(limit=peak))).fits
    assert not report._replace(machine=machine(CHIP._replace(limit=peak - 1))).fits


def test_the_table_names_what_was_asked_and_what_was_found(report):
    shown = table(report, "a.py")
    for words in (
        "a.py on cpu:4 (4 × cpu)",
        "data=2 fsdp=2 tensor=1 chunks=2 remat=projections",
        "fits",
        "all-gather over fsdp",
    ):
        assert words in shown
    assert max(map(len, shown.splitlines())) < 132


def test_what_the_host_holds_is_a_line_of_the_table_and_in_json(report):
    assert "host" not in table(report, "a.py")
    held = report._replace(
        memory={**report.memory, "host": 3 * 2**20},
        work=report.work._replace(to_host=2e9, from_host=1e9),
    )
    (line,) = (line for line in table(held, "a.py").splitlines() if "host" in line)
    for words in ("3.00", "2.00 GB sent", "1.00 GB fetched"):
        assert words in line
    found = to_json(held, "a.py")
    assert found["host_memory_bytes_per_chip"] == 3 * 2**20
    assert (found["to_host_bytes_per_step"], found["from_host_bytes_per_step"]) == (2e9, 1e9)


def test_a_refused_program_is_a_table_with_the_compilers_words(report):
    words = "RESOURCE_EXHAUSTED: Used 2.00G of 1.00G hbm."
    refused = report._replace(work=None, refusal=words, memory={**report.memory, "peak": 2 * 2**30})
    shown = table(refused, "a.py")
    assert not refused.fits
    assert words in shown
    assert "does not fit" in shown
    assert "steps an hour" not in shown


def test_json_has_what_others_rely_on(report):
    found = to_json(report, "a.py")
    made = build_step(RUN, tiny.SPEC, "cpu").model_def
    assert found["fits"] is True
    assert found["memory_bytes_per_chip"] == report.memory["peak"]
    assert found["memory_limit_bytes"] == CHIP.limit
    assert found["model_flops_per_step"] == model_flops(made, 48 * 8, 48 * 8 * 8)
    assert found["flops_per_step"] == 4 * found["flops_per_step_per_chip"]
    assert found["collective_bytes_per_step"] == sum(
        amount
        for axes in found["collective_bytes_by_kind_and_axis"].values()
        for amount in axes.values()
    )
    assert found["bound"] in ("compute", "memory", "network")
    assert found["notes"] == ()


def test_a_mesh_that_does_not_divide_the_batch_is_refused_before_compiling():
    with pytest.raises(ConfigError, match="shards"):
        plan(
            Training(**{**_fields(RUN), "mesh": Mesh(1, -1, 1), "batch": Batch(2, 1, 2)}),
            tiny.SPEC,
            machine(),
        )


def test_groups_of_integers_that_do_not_divide_over_the_mesh_are_refused_before_compiling():
    # -1 says nothing of the mesh until the machine is known: two groups of hidden=256 over four chips.
    changes = {"mesh": Mesh(1, -1, 1), "model": Model(dtype="float32", quantisation="int4")}
    with pytest.raises(ConfigError, match=r"over config\.mesh\.fsdp=4"):
        plan(
            Training(**_fields(RUN) | changes),
            tiny.SPEC._replace(hidden=256, ff=512, head_size=64),
            machine(),
        )


def _fields(run: Training) -> dict:
    return {name: getattr(run, name) for name in run.__slots__}


@pytest.mark.parametrize(
    ("words", "peak"),
    [
        (
            "RESOURCE_EXHAUSTED: Ran out of memory in memory space hbm. Used 20.80G of 15.75G hbm.",
            20.8,
        ),
        (
            "RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required for HLO temporaries (129.25G) exceeds …",
            129.25,
        ),
    ],
)
def test_the_compilers_own_figure_is_read_from_its_refusal(words, peak):
    assert refused(words)["peak"] == peak * 2**30
