"""Main-memory bytes of compiled programs against counts by hand: each array once, of a stack one layer a round."""

import os
from unittest import mock

import jax
import jax.numpy as jnp
import pytest
from jax.experimental import topologies
from jax.sharding import SingleDeviceSharding

from e5jax.plan.costs import operations
from e5jax.plan.hlo import parse
from e5jax.plan.topology import parse_topology, prepare

LAYERS, N, D = 4, 1_024, 1_024


@pytest.fixture(scope="module")
def chip():
    with mock.patch.dict(os.environ):
        prepare(parse_topology("v5e:2x2"))
        return SingleDeviceSharding(
            topologies.get_topology_desc(platform="tpu", topology_name="v5e:2x2").devices[0]
        )


def read_and_written(text: str) -> float:
    return sum(one.times * one.bytes for one in operations(parse(text), 1))


@pytest.mark.parametrize("kept", [False, True])
def test_layers_of_integers_are_read_once_each_and_what_they_keep_is_written_once(chip, kept):
    def layer(x, weights):
        kernel, scale = weights
        x = jnp.tanh(x @ kernel.astype(x.dtype) * scale[None]).astype(x.dtype)
        return x, x if kept else None

    def stack(x, kernels, scales):
        last, every = jax.lax.scan(layer, x, (kernels, scales))
        return every if kept else last

    shapes = [((N, D), jnp.bfloat16), ((LAYERS, D, D), jnp.int8), ((LAYERS, D), jnp.float32)]
    arguments = [jax.ShapeDtypeStruct(*each, sharding=chip) for each in shapes]
    found = read_and_written(jax.jit(stack).lower(*arguments).compile().as_text())
    rows, kernels, scales = 2 * N * D, LAYERS * D * D, 4 * LAYERS * D
    assert found == pytest.approx(
        rows + kernels + scales + (LAYERS if kept else 1) * rows, rel=1e-3
    )  # beside them loop counters


UPDATE = """HloModule m

ENTRY %main (a: f32[8,128], u: f32[1,128], i: s32[]) -> f32[8,128] {
  %a = f32[8,128]{1,0WHERE} parameter(0)
  %u = f32[1,128]{1,0FROM} parameter(1)
  %i = s32[] parameter(2)
  INSTRUCTIONS
}
"""
PLAIN = "ROOT %d = f32[8,128]{1,0WHERE} dynamic-update-slice(%a, %u, %i, %i)"
TAKEN = "(f32[8,128]{1,0WHERE}, f32[1,128]{1,0FROM}, s32[], s32[])"
STARTED = f"""%s = ({TAKEN}, f32[8,128]{{1,0WHERE}}, u32[]{{:S(2)}}) dynamic-update-slice-start(%a, %u, %i, %i)
  ROOT %d = f32[8,128]{{1,0WHERE}} dynamic-update-slice-done(%s)"""


@pytest.mark.parametrize("form", [PLAIN, STARTED], ids=["at once", "asynchronous"])
@pytest.mark.parametrize(
    ("where", "source", "rows"),
    [("", "", 2), ("", ":S(1)", 1), (":S(1)", "", 1), (":S(1)", ":S(1)", 0)],
)
def test_an_update_reads_and_writes_only_what_it_changes_and_only_in_main_memory(
    form, where, source, rows
):
    text = UPDATE.replace("INSTRUCTIONS", form).replace("WHERE", where).replace("FROM", source)
    assert read_and_written(text) == rows * 4 * 128
