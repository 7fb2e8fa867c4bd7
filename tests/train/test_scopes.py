"""Named scopes: what a profile calls the phases of the step (docs/profiling.md)."""

import re

import jax
import pytest

from e5jax.config import Batch, Lora, Loss, Mesh, Model, Optim, Scores, Tokens, Training
from e5jax.train.build import abstract_arguments, build_step
from tests import tiny

SPEC = tiny.SPEC._replace(hidden=32, ff=64, head_size=8, layers=2)
BOTH = (
    "kept",
    "again",
    "layers",
    "attention",
    "attention/gather",
    "attention/kernel",
    "ff",
    "ff/gather",
    "norm",
    "pool",
    "loss",
)
ONCE = (
    "embed",
    "embed/gather",
    "loss/gather",
    "loss/scores",
    "update",
)  # without a gradient, or with that of the whole


def names(scores: Scores, lora: Lora | None) -> set[str]:
    """Scopes of the compiled step's operations, without what transforms and primitives add, as `/a/b/`."""
    run = Training(
        tokens=Tokens(limit=16),
        model=Model(base="any", dtype="float32"),
        lora=lora,
        batch=Batch(queries=16, negatives=1, chunks=6, kept_chunks=2, shards=8),
        loss=Loss(scores=scores, block=3),
        optim=Optim(steps=9, warmup_steps=1),
        mesh=Mesh(2, 2, 2),
    )
    on = tiny.mesh(2, 2, 2)
    with jax.set_mesh(on):
        learner = build_step(run, SPEC, "cpu")
        lowered = learner.step.lower(*abstract_arguments(run, learner, on))
        text = lowered.compile().as_text()
    assert text is not None
    return {name.rpartition("/")[0] for name in re.findall(r'op_name="([^"]*)"', text)}


def within(scope: str, name: str) -> bool:
    """True when the scope's words stand in the name in this order; `jvp(loss)` is the scope `loss`."""
    words = iter(re.split(r"[/()]+", name))
    return all(word in words for word in scope.split("/"))


@pytest.mark.parametrize(
    ("scores", "lora"), [("dense", Lora(rank=4, dropout=0.0)), ("ring", None)], ids=["lora", "full"]
)
def test_every_phase_of_the_step_is_named_in_the_compiled_program(scores, lora):
    found = names(scores, lora)
    backward = {name for name in found if "transpose(" in name}
    for scope in BOTH:
        assert any(within(scope, name) for name in found - backward), scope
        assert any(within(scope, name) for name in backward), scope
    for scope in ONCE:
        assert any(within(scope, name) for name in found), scope
