"""Selected parameters are the only ones that change, nothing else has moments, and checkpoints and exports know of them."""

from functools import partial
from pathlib import Path

import jax
import numpy as np
import pytest

from e5jax.checkpoint.checkpointer import Checkpoints
from e5jax.config import Lora, Select, Training
from e5jax.errors import ConfigError
from e5jax.export.folder import check, export
from e5jax.export.trained_model import Choice
from e5jax.mesh import make_mesh
from e5jax.model import hf_weights
from e5jax.model.model_def import model_def
from e5jax.train import loop
from e5jax.train.build import abstract_arguments, build_step
from e5jax.train.build import put_batch as put
from e5jax.train.flops import model_flops, parameters
from e5jax.train.step import loss_and_accuracy
from e5jax.workdir.directory import Workdir
from tests import tiny
from tests.train.test_loop import inputs_for, lora_run, place, train_and_die

__all__ = ["place"]  # a fixture

NORMS = {
    "norm.weight",
    *(
        f"layers.{n}.{kind}_layernorm.weight"
        for n in (0, 1)
        for kind in ("input", "post_attention")
    ),
}
TOP = {
    *(f"layers.1.self_attn.{x}_proj.weight" for x in "qkvo"),
    *(f"layers.1.mlp.{x}_proj.weight" for x in ("gate", "up", "down")),
    *(f"layers.1.{kind}_layernorm.weight" for kind in ("input", "post_attention")),
}
# Sizes of `lora_run`: hidden 32, ff 64, two layers, heads of 32 and 16 numbers.
LAYER = 32 * 32 * 2 + 32 * 16 * 2 + 3 * 32 * 64 + 2 * 32
MAPS = [
    f"layers.{n}.{x}_proj.bias"
    for n in (0, 1)
    for x in (*(f"self_attn.{y}" for y in "qkvo"), "mlp.gate", "mlp.up", "mlp.down")
]
KINDS = {
    "last layer, norms and biases": (
        Select(("top/*", "*/scale", "*/bias"), top=1),
        None,
        TOP | NORMS | set(MAPS),
        LAYER + 3 * 32 + 2 * (3 * 32 + 2 * 16 + 2 * 64),
    ),
    "last layer's norms and biases beside adapters": (
        Select(("top/*/scale", "top/attention/*/bias"), top=1),
        Lora(rank=2, alpha=4.0, dropout=0.1, targets=("q",)),
        {f"layers.{n}.self_attn.q_proj.weight" for n in (0, 1)} | (TOP & NORMS) | set(MAPS[7:11]),
        2 * 32 + 2 * 32 + 2 * 16 + 2 * 2 * (32 + 32),
    ),
}
RESUMED, VERIFIED = "last layer, norms and biases", "last layer's norms and biases beside adapters"


def run_of(root: Path, select: Select, lora: Lora | None = None) -> Training:
    run = lora_run(root)
    run.select, run.lora = select, lora
    run.model.bias = any(name.endswith("/bias") for name in select.names)
    return run


@pytest.mark.parametrize("kind", KINDS)
def test_selected_parameters_alone_change_and_have_moments(place, tmp_path, kind):
    select, lora, changed, count = KINDS[kind]
    run = run_of(place, select, lora)
    inputs = inputs_for(run)
    mesh = make_mesh(run.mesh)
    with jax.set_mesh(mesh):
        state, _, _ = abstract_arguments(run, build_step(run, inputs.spec, "cpu"), mesh)
    sizes = [leaf.size for leaf in jax.tree.leaves(state.moments) if leaf.ndim]
    assert sum(sizes) == 2 * sum(leaf.size for leaf in state.parameters.values()) == 2 * count
    begun = 0
    if kind == RESUMED:
        train_and_die(2, run, inputs, tmp_path)
        begun = 2
    else:
        run.optim.steps = 2
    assert loop.train(run, inputs_for(run), Workdir(tmp_path), "train") == run.optim.steps - begun
    with Checkpoints(tmp_path / "checkpoints") as checkpoints:
        assert set(checkpoints.facts(run.optim.steps)["parameters"]) == set(state.parameters)
    choice = Choice(verify=kind == VERIFIED)
    export(
        run,
        inputs.base,
        inputs.spec,
        inputs.tokenizer,
        Workdir(tmp_path),
        tmp_path / "export",
        choice,
    )
    before, after = hf_weights.headers(place / "base"), hf_weights.headers(tmp_path / "export")
    zeros = {
        name
        for name in after
        if name.endswith(".bias") and not np.asarray(hf_weights.read(after[name])).any()
    }
    assert after.keys() - zeros - before.keys() == changed - before.keys()
    assert after.keys() - before.keys() == set(MAPS if run.model.bias else ())
    widths = [np.asarray(hf_weights.read(after[name])) for name in before]
    kept = {
        name
        for name, found in zip(before, widths, strict=True)
        if np.array_equal(found, hf_weights.read(before[name]).astype(found.dtype))
    }
    assert before.keys() - kept == changed & before.keys()


def test_gradients_of_what_is_selected_are_the_same_on_any_mesh():
    # Biases, norms, the last layer, and rows of tokens from 90 on.
    spec = tiny.SPEC._replace(
        hidden=32, ff=64, head_size=8, layers=2, bias=True, top=1, vocab=90, added=7
    )
    of = model_def(
        spec,
        None,
        dtype="float32",
        remat="projections",
        kernel="xla",
        select=("*/bias", "*/scale", "top/ff/*", "added", "norm/*"),
    )
    values, found = tiny.numbers(of), []
    for on in (tiny.mesh(1, 1, 1), tiny.mesh(2, 2, 2)):
        trained, frozen = tiny.place(of, values, on)
        with jax.set_mesh(on):
            batch = put(tiny.batch(8, 1, 1, width=12, texts_a_row=3, shards=4), on)
            loss = partial(loss_and_accuracy, tiny.objective(of))
            run = jax.jit(jax.grad(lambda trained, *rest, loss=loss: loss(trained, *rest, None)[0]))
            found.append(jax.device_get(run(trained, frozen, batch)))
    wanted, spread = found
    assert {name.partition("/")[0] for name in wanted} == {"layers", "top", "norm", "added"}
    for name, value in wanted.items():
        assert np.linalg.norm(value) > 0, name
        assert np.linalg.norm(spread[name] - value) <= 2e-5 * np.linalg.norm(value), name


def test_layers_apart_compute_what_they_did_together():
    apart = tiny.SPEC._replace(top=1)
    together, split = tiny.made(lora=tiny.LORA), tiny.made(apart)
    values = tiny.numbers(together)
    cut = {
        name: value[:2] if name.startswith("layers/") else value for name, value in values.items()
    }
    cut |= {
        name.replace("layers/", "top/"): value[2:]
        for name, value in values.items()
        if name.startswith("layers/")
    }
    on = tiny.mesh(1, 1, 1)
    tokens = np.random.default_rng(0).integers(3, 97, (8, 12)).astype(np.int32)
    ones, positions = np.ones_like(tokens), np.tile(np.arange(12, dtype=np.int32), (8, 1))
    seeds = np.arange(3, dtype=np.uint32)
    with jax.set_mesh(on):
        found = []
        for of, numbers in ((together, values), (split, cut)):
            trained, frozen = tiny.place(of, numbers, on)
            run = jax.jit(lambda parameters, *rows, of=of: of.decoder(parameters)(*rows))
            found.append(
                np.asarray(run(trained | frozen, *tiny.rows(on, tokens, ones, positions), seeds))
            )
    np.testing.assert_allclose(*found, atol=2e-6)


def test_there_is_no_backward_pass_below_what_is_trained():
    spec = tiny.SPEC._replace(top=1)
    whole, top = tiny.made(lora=None), tiny.made(spec, None)._replace(select=("top/*", "norm/*"))
    layer = spec.matrix_parameters // 3
    assert parameters(top, top.trained) == layer + 3 * 64
    assert model_flops(top, 10, 0) == 10 * layer * (6 + 2 * 2)
    assert model_flops(top, 0, 1) == 2 * (2 + 3) * 4 * 16
    norms = tiny.made(lora=None)._replace(select=("*/scale",))
    assert model_flops(norms, 1, 7) == model_flops(whole, 1, 7) - 2 * spec.matrix_parameters


@pytest.mark.parametrize(
    ("select", "lora", "said"),
    [
        (
            Select(("*/weight",)),
            None,
            r"config.select.names: nothing is called '\*/weight'; there are embedding, ",
        ),
        (
            Select(("layers/ff/*",)),
            Lora(targets=("up",)),
            "config.select.names: layers/ff/up/kernel has an adapter",
        ),
    ],
)
def test_what_cannot_be_selected_is_named(place, select, lora, said):
    run = run_of(place, select, lora)
    with pytest.raises(ConfigError, match=said):
        build_step(run, inputs_for(run).spec, "cpu")


def test_integers_cannot_be_trained(place):
    run = run_of(place, Select(("layers/ff/down/kernel",)), Lora(targets=("q",)))
    run.model.quantisation = "int8"
    with pytest.raises(ConfigError, match="layers/ff/down/kernel is stored as int8"):
        build_step(run, inputs_for(run).spec, "cpu")


def test_there_are_more_layers_than_the_last_ones(place):
    with pytest.raises(ConfigError, match=r"config\.select\.top=2: the model has 2 layers"):
        inputs_for(run_of(place, Select(("top/*",), top=2)))


def test_an_adapter_folder_does_not_hold_what_is_selected(place):
    run = run_of(place, Select(("*/scale",)), Lora())
    with pytest.raises(
        ConfigError, match=r"--format=adapter: the run trained \*/scale beside its adapters"
    ):
        check(run, place / "base", inputs_for(run).spec, Choice("adapter"))
