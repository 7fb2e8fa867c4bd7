"""FLOPs of compiled programs against counts by hand: 2 · m · k · n for each product, exactly."""

import os
from unittest import mock

import jax
import jax.numpy as jnp
import pytest
from jax.experimental import topologies
from jax.sharding import SingleDeviceSharding

from e5jax.config import Batch, Model, Optim, Tokens, Training
from e5jax.model.splash import block_size
from e5jax.plan.costs import operations, total_flops
from e5jax.plan.hlo import parse
from e5jax.plan.topology import parse_topology, prepare
from e5jax.train.build import abstract_arguments, build_step
from tests import tiny

N, D, LAYERS, CHUNKS = 8, 16, 3, 4
PRODUCT = 2 * N * D * D


def counted(function, *arguments, shares=None):
    text = jax.jit(function).lower(*arguments).compile().as_text()
    return total_flops(operations(parse(text), 1, shares))


def layer(x, w):
    return jnp.tanh(x @ w)


def unrolled(x, weights):
    for number in range(LAYERS):
        x = layer(x, weights[number])
    return jnp.sum(x)


def scanned(x, weights):
    return jnp.sum(jax.lax.scan(lambda x, w: (layer(x, w), None), x, weights)[0])


def chunked(x, weights):
    parts = x[None] * jnp.arange(1.0, 1 + CHUNKS)[:, None, None]
    return jnp.sum(jax.lax.map(jax.checkpoint(lambda part: scanned(part, weights)), parts))


X, W = jnp.ones((N, D)), jnp.ones((LAYERS, D, D))


@pytest.mark.parametrize(
    ("function", "forward", "backward"),
    [
        (unrolled, LAYERS, 3 * LAYERS),  # y, and the gradients of x and w
        (scanned, LAYERS, 3 * LAYERS),
        (chunked, CHUNKS * LAYERS, CHUNKS * 4 * LAYERS),  # every chunk is computed again
    ],
)
def test_a_chain_of_products_counts_as_by_hand(function, forward, backward):
    assert counted(function, X, W) == forward * PRODUCT
    assert counted(jax.value_and_grad(function, (0, 1)), X, W) == backward * PRODUCT


def test_one_more_product_adds_its_own_flops():
    wide = jnp.ones((D, 40))
    assert (
        counted(lambda x, w, v: jnp.sum(scanned(x, w) + x @ v), X, W, wide)
        == LAYERS * PRODUCT + 2 * N * D * 40
    )


def test_a_product_over_several_dimensions_counts_each_of_them():
    assert counted(
        lambda a, b: jnp.einsum("bhtd,bhsd->bhts", a, b),
        jnp.ones((2, 3, 5, 7)),
        jnp.ones((2, 3, 11, 7)),
    ) == (2 * 2 * 3 * 5 * 11 * 7)


def test_a_convolution_counts_the_places_that_are_not_padding():
    image, kernel = jnp.ones((2, 6, 3)), jnp.ones((4, 3, 5))

    def convolved(a, b):
        return jax.lax.conv_general_dilated(
            a, b, (2,), [(2, 1)], dimension_numbers=("NWC", "WIO", "NWC")
        )

    found = counted(convolved, image, kernel)
    places = sum(0 <= out * 2 + tap - 2 < 6 for out in range(3) for tap in range(4))
    assert found == 2 * 2 * 3 * 5 * places


@pytest.mark.parametrize("step", [1, 2, 3])
def test_rounds_follow_from_condition_and_increment_when_the_compiler_does_not_say(step):
    def loop(x, w):
        return jax.lax.while_loop(
            lambda c: c[0] < 11, lambda c: (c[0] + step, jnp.tanh(c[1] @ w)), (jnp.int32(1), x)
        )[1]

    text = jax.jit(loop).lower(X, W[0]).compile().as_text()
    assert "known_trip_count" in text
    silent = text.replace("known_trip_count", "ignored")
    assert total_flops(operations(parse(silent), 1)) == len(range(1, 11, step)) * PRODUCT


def test_rounds_that_depend_on_data_are_counted_once_and_named():
    def loop(x, w):
        return jax.lax.while_loop(lambda x: jnp.sum(x) < 11, lambda x: jnp.tanh(x @ w), x)

    done = operations(parse(jax.jit(loop).lower(X, W[0]).compile().as_text()), 1)
    assert total_flops(done) == PRODUCT
    assert any("rounds unknown" in one.unknown for one in done)


@pytest.mark.parametrize("active", [0.0, 0.25, 1.0])
def test_the_dearer_branch_is_taken_in_its_share_of_runs(active):
    def skipping(x, w, full):
        with jax.named_scope("part"):
            return jax.lax.map(
                lambda on: jax.lax.cond(on, lambda: scanned(x, w), lambda: jnp.sum(x @ w[0])), full
            )

    expected = CHUNKS * PRODUCT * (active * LAYERS + (1 - active))
    assert (
        counted(skipping, X, W, jnp.ones(CHUNKS, bool), shares={"other": 0.7, "part": active})
        == expected
    )
    assert (
        counted(skipping, X, W, jnp.ones(CHUNKS, bool), shares={"other": 0.7})
        == CHUNKS * PRODUCT * LAYERS
    )


def test_products_inside_conditionals_with_swapped_branches_count_the_same():
    def skipping(x, w, on):
        with jax.named_scope("part"):
            return jax.lax.cond(on, lambda: jnp.sum(x), lambda: scanned(x, w))

    assert counted(skipping, X, W, jnp.array(True), shares={"part": 0.5}) == 0.5 * LAYERS * PRODUCT


# `tiny.SPEC`: hidden 64, ff 128, 3 layers, 4 heads and 2 kv heads of 16. 24 texts of 8 tokens; every parameter is trained.
MAPS = (
    3 * 2 * 24 * 8 * (64 * 64 + 2 * 64 * 32 + 64 * 64 + 3 * 64 * 128)
)  # every map of every layer once
DOWN = 3 * 2 * 24 * 8 * 128 * 64
ATTENTION = 3 * 2 * (2 * 24 * 4 * 8 * 8 * 16)  # scores and mixing
POOLING = 2 * 24 * 8 * 8 * 64  # a one-hot product of a row's eight places
LOSS = 2 * 8 * 16 * 64
# Forward, and two gradients of each product, of pooling's only one; in each layer's backward pass all but `down` once more.
ONE_CHUNK = (1 + 2 + 1) * (MAPS + ATTENTION) - DOWN + 2 * POOLING + 3 * LOSS
# Several chunks are encoded twice.
AGAIN = MAPS + ATTENTION + POOLING


@pytest.mark.parametrize(("chunks", "expected"), [(1, ONE_CHUNK), (4, ONE_CHUNK + AGAIN)])
def test_the_real_step_counts_as_by_hand(chunks, expected):
    run = Training(
        model=Model(dtype="float32", remat="nothing"),
        tokens=Tokens(limit=8),
        batch=Batch(queries=8, negatives=1, chunks=chunks),
        optim=Optim(steps=10, warmup_steps=1),
    )
    mesh, learner = tiny.mesh(1, 1, 1), build_step(run, tiny.SPEC, "cpu")
    with jax.set_mesh(mesh):
        text = learner.step.lower(*abstract_arguments(run, learner, mesh)).compile().as_text()
    assert total_flops(operations(parse(text), 1)) == expected


@pytest.fixture(scope="module")
def chip():
    with mock.patch.dict(os.environ):
        prepare(parse_topology("v5e:2x2"))
        return SingleDeviceSharding(
            topologies.get_topology_desc(platform="tpu", topology_name="v5e:2x2").devices[0]
        )


def on(chip, *shapes):
    return [jax.ShapeDtypeStruct(shape, jnp.bfloat16, sharding=chip) for shape in shapes]


def test_a_scan_compiled_for_a_tpu_counts_as_by_hand(chip):
    assert (
        counted(scanned, *on(chip, (128, 256), (LAYERS, 256, 256))) == LAYERS * 2 * 128 * 256 * 256
    )
    assert (
        counted(jax.grad(scanned, (0, 1)), *on(chip, (128, 256), (LAYERS, 256, 256)))
        == 3 * LAYERS * 2 * 128 * 256 * 256
    )


def test_batched_products_that_a_tpu_runs_as_convolutions_count_as_by_hand(chip):
    b, h, t, d = 4, 8, 128, 64

    def attention(
        q, k, v
    ):  # with a softmax the compiler would put a kernel of its own in its place
        return jnp.einsum("bhts,bhsd->bhtd", jnp.tanh(jnp.einsum("bhtd,bhsd->bhts", q, k)), v)

    arguments = on(chip, *[(b, h, t, d)] * 3)
    text = jax.jit(attention).lower(*arguments).compile().as_text()
    assert " convolution(" in text
    assert " dot(" not in text
    assert total_flops(operations(parse(text), 1)) == 2 * 2 * b * h * t * t * d
    assert counted(
        jax.grad(lambda q, k, v: jnp.sum(attention(q, k, v).astype(jnp.float32)), (0, 1, 2)),
        *arguments,
    ) == (
        # Scores forward, and two products for each of scores and mixing backward; the mixing forward serves no gradient.
        5 * 2 * b * h * t * t * d
    )


KERNEL = """HloModule m

ENTRY %main (s: s32[1,8,2048], q: bf16[QUERIES]) -> bf16[QUERIES] {
  %s = s32[1,8,2048]{2,1,0} parameter(0)
  %q = bf16[QUERIES]{2,1,0} parameter(1)
  ROOT %splash_mha_dkv.1 = bf16[QUERIES]{2,1,0} custom-call(%s, %q), custom_call_target="tpu_custom_call"
}
"""


@pytest.mark.parametrize(("shape", "rows"), [("3,8,2048,64", 3), ("8,2048,64", 1)])
def test_splash_attention_counts_the_blocks_on_and_below_the_diagonal(shape, rows):
    block = block_size(2_048)
    visited = sum(i + 1 for i in range(2_048 // block)) * block**2
    (_, _, kernel) = operations(parse(KERNEL.replace("QUERIES", shape)), 1)
    assert kernel.flops == 4 * 2 * visited * rows * 8 * 64
