"""Chunks that are skipped when empty: the same numbers as without, and nothing of the weights between the passes."""

from collections.abc import Iterator
from functools import partial

import jax
import jax.extend
import jax.numpy as jnp
import numpy as np
import pytest
from jax.ad_checkpoint import checkpoint_name
from jax.sharding import NamedSharding, PartitionSpec

from e5jax.train.build import put_batch
from e5jax.train.gradcache import remat_chunk
from e5jax.train.step import loss_and_accuracy
from tests import tiny

POLICIES = {
    "nothing": jax.checkpoint_policies.nothing_saveable,
    "by name": jax.checkpoint_policies.save_only_these_names("inner"),
    "everything": jax.checkpoint_policies.everything_saveable,
}


def run(trained: dict, frozen: dict, seed: jax.Array | None, x: jax.Array) -> jax.Array:
    """A network of two maps; the seed stands for what has no gradient."""
    inner = checkpoint_name(jnp.tanh(x @ frozen["w"]), "inner")
    return jnp.sin(inner @ trained["v"]) * (1 if seed is None else seed.astype(x.dtype))


def make(dtype: type) -> tuple[dict, dict, jax.Array]:
    made = np.random.default_rng(0)
    everywhere = NamedSharding(tiny.mesh(1, 1, 1), PartitionSpec())
    w, v, x = (
        jax.device_put(made.standard_normal(s).astype(dtype), everywhere)
        for s in ((5, 7), (7, 3), (4, 2, 5))
    )
    return {"v": v}, {"w": w}, x


@pytest.fixture(scope="module")
def numbers():
    return make(np.float32)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize(
    "seeds", [None, np.arange(1, 5, dtype=np.uint32)], ids=["without seed", "with seed"]
)
def test_value_and_gradient_are_those_of_the_chunks_with_text(policy, seeds):
    """In float64: in float32 what is computed again for the gradient is rounded otherwise on some processors."""
    has_text = jnp.asarray([True, True, False, True])

    def found(trained: dict, frozen: dict, x: jax.Array) -> jax.Array:
        one = partial(remat_chunk(run, POLICIES[policy]), trained, frozen)
        return jnp.sum(jax.lax.map(one, (has_text, seeds, x)) ** 2)

    def wanted(trained: dict, frozen: dict, x: jax.Array) -> jax.Array:
        return sum(
            jnp.sum(run(trained, frozen, None if seeds is None else seeds[i], x[i]) ** 2)
            for i in (0, 1, 3)
        )

    with jax.enable_x64(True), jax.set_mesh(tiny.mesh(1, 1, 1)):
        arguments = make(np.float64)
        for one, other in zip(
            jax.tree.leaves(jax.jit(jax.value_and_grad(found))(*arguments)),
            jax.tree.leaves(jax.value_and_grad(wanted)(*arguments)),
            strict=True,
        ):
            assert one.dtype == np.float64
            assert np.allclose(one, other, rtol=1e-12)


@pytest.mark.parametrize("policy", POLICIES)
def test_what_is_kept_on_the_host_changes_no_bit(numbers, policy):
    trained, frozen, x = numbers

    def program(kept_on: str) -> jax.stages.Traced:
        def loss(trained: dict) -> jax.Array:
            one = partial(remat_chunk(run, POLICIES[policy], kept_on), trained, frozen)
            return jnp.sum(
                jax.lax.map(one, (jnp.asarray([True, False, True, False]), None, x)) ** 2
            )

        return jax.jit(jax.value_and_grad(loss)).trace(trained)

    with jax.set_mesh(tiny.mesh(1, 1, 1)):
        programs = {kept_on: program(kept_on) for kept_on in ("device", "host")}
        found, wanted = (
            jax.tree.leaves(programs[kept_on].lower().compile()(trained))
            for kept_on in ("host", "device")
        )
    assert all(np.array_equal(one, other) for one, other in zip(found, wanted, strict=True))
    assert "Host" not in str(programs["device"].jaxpr)
    assert ("Host" in str(programs["host"].jaxpr)) == (
        policy != "nothing"
    )  # else nothing was shown


def test_a_chunk_without_text_is_zero_and_has_no_gradient(numbers):
    trained, frozen, x = numbers
    one = remat_chunk(run, POLICIES["nothing"])
    with jax.set_mesh(tiny.mesh(1, 1, 1)):
        value, back = jax.vjp(
            lambda trained: one(trained, frozen, (jnp.asarray(False), None, x[0])), trained
        )
        assert not value.any()
        assert not back(jnp.ones_like(value))[0]["v"].any()


def conditionals(jaxpr: jax.extend.core.Jaxpr) -> Iterator[jax.extend.core.JaxprEqn]:
    """All of a program, the inner ones too."""
    for made in jaxpr.eqns:
        if made.primitive.name == "cond":
            yield made
        for inner in jax.tree.leaves(
            list(made.params.values()), is_leaf=lambda x: hasattr(x, "eqns") or hasattr(x, "jaxpr")
        ):
            if hasattr(inner, "eqns") or hasattr(inner, "jaxpr"):
                yield from conditionals(getattr(inner, "jaxpr", inner))


@pytest.mark.parametrize("kept", [0, 3])
def test_no_weights_come_out_of_a_conditional(kept):
    of = tiny.made(tiny.SPEC, tiny.LORA)
    on = tiny.mesh(1, 1, 1)
    trained, frozen = tiny.place(of, tiny.numbers(of), on)
    loss = partial(loss_and_accuracy, tiny.objective(of, kept_chunks=kept))
    with jax.set_mesh(on):
        batch = put_batch(tiny.batch(8, 1, 4, width=12), on)
        program = jax.make_jaxpr(jax.grad(loss, has_aux=True))(trained, frozen, batch, None)
    weights = {value.shape for name, value in frozen.items() if name.endswith("kernel")}
    found = list(conditionals(program.jaxpr))
    assert len(found) >= (4 if kept else 2)  # forward and backward, of each part
    assert not weights & {out.aval.shape for made in found for out in made.outvars}
