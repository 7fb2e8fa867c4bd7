"""Twenty training steps against PEFT, torch's AdamW and sentence-transformers' in-batch loss."""

import jax
import numpy as np
import peft
import pytest
import torch
import transformers
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

from e5jax.config import Batch, Model, Optim, Tokens, Training
from e5jax.config import Loss as LossConfig
from e5jax.data.records import Batch as Rows
from e5jax.train import state as states
from e5jax.train.build import build_step, put_batch
from tests import tiny

STEPS, WARMUP, QUERIES, NEGATIVES, WIDTH = 20, 3, 8, 1, 12
SPEC = tiny.SPEC._replace(layers=2)
RUN = Training(
    tokens=Tokens(limit=WIDTH),
    model=Model(base="x", dtype="float32"),
    lora=tiny.LORA,
    batch=Batch(queries=QUERIES, negatives=NEGATIVES, chunks=2),
    loss=LossConfig(temperature=0.05),
    # A clip of 5 acts in some steps and not in others; a decay of 0.1 moves the loss by more than the tolerance.
    optim=Optim(
        learning_rate=3e-3, steps=STEPS, warmup_steps=WARMUP, weight_decay=0.1, clip_norm=5.0
    ),
)
# Four batches, seen five times each, so that there is something to learn.
BATCHES = [tiny.batch(QUERIES, NEGATIVES, 2, width=WIDTH, seed=step % 4) for step in range(STEPS)]


def ours() -> tuple[list[float], list[float], dict[str, np.ndarray]]:
    """(losses, gradient norms, last parameters)."""
    learner, on = build_step(RUN, SPEC, "cpu"), tiny.mesh(1, 1, 1)
    trained, frozen = tiny.place(learner.model_def, tiny.numbers(learner.model_def), on)
    losses, norms = [], []
    with jax.set_mesh(on):
        state = states.fresh(trained, learner.optimiser, on)
        for batch in BATCHES:
            state, metrics = learner.step(state, frozen, put_batch(batch, on))
            losses.append(float(metrics.loss))
            norms.append(float(metrics.gradient_norm))
    return losses, norms, jax.device_get(state.parameters)


def embed(model: peft.PeftModel, batch: Rows) -> torch.Tensor:
    """Unit vectors of the last tokens, of all texts in their order."""
    sides = zip(*((one.query, *one.passages) for one in tiny.unpack(batch)), strict=True)
    texts = [text for side in sides for text in side]  # queries, positives, then negatives
    tokens = torch.tensor([text + [0] * (WIDTH - len(text)) for text in texts])
    mask = torch.tensor([[1] * len(text) + [0] * (WIDTH - len(text)) for text in texts])
    states = model(input_ids=tokens, attention_mask=mask).last_hidden_state
    last = states[torch.arange(len(tokens)), mask.sum(dim=1) - 1]
    return torch.nn.functional.normalize(last, dim=-1)


def theirs() -> tuple[list[float], list[float], peft.PeftModel]:
    """The same in torch: (losses, gradient norms, model)."""
    of, config = tiny.made(SPEC), RUN.optim
    model = tiny.peft_mistral(of, tiny.numbers(of))
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimiser = torch.optim.AdamW(
        parameters,
        config.learning_rate,
        (config.beta1, config.beta2),
        config.epsilon,
        config.weight_decay,
    )
    rate = transformers.get_linear_schedule_with_warmup(optimiser, WARMUP, STEPS)
    loss_of = MultipleNegativesRankingLoss(
        SentenceTransformer(modules=[torch.nn.Identity()]), scale=1 / RUN.loss.temperature
    )
    losses, norms = [], []
    for batch in BATCHES:
        optimiser.zero_grad()
        loss = loss_of.compute_loss_from_embeddings(
            list(embed(model, batch).split(QUERIES)), labels=None
        )
        loss.backward()
        norms.append(torch.nn.utils.clip_grad_norm_(parameters, config.clip_norm).item())
        optimiser.step()
        rate.step()
        losses.append(loss.item())
    return losses, norms, model


@pytest.mark.filterwarnings(tiny.PEFT_WARNING)
def test_twenty_steps_equal_those_of_peft_and_sentence_transformers():
    losses, norms, parameters = ours()
    wanted, wanted_norms, model = theirs()
    # The run exercises what it is meant to compare: learning, and clipping in some steps only.
    assert np.mean(losses[-4:]) <= 2 / 3 * np.mean(losses[:4])
    assert min(norms) < RUN.optim.clip_norm < max(norms)
    # float32 rounding grows through Adam's division by small second moments: measured 1e-5, of losses from 5 to 2.
    assert np.abs(np.subtract(losses, wanted)).max() <= 1e-3
    assert np.allclose(norms, wanted_norms, rtol=1e-2)
    of = tiny.made(SPEC)
    start = tiny.numbers(of)
    for name, layer, factor in tiny.adapters(of):
        found = parameters[f"{name}/{factor}"][layer]
        moved = found - start[f"{name}/{factor}"][layer]
        other = tiny.peft_factor(model, name, layer, factor).detach().numpy().T
        assert np.linalg.norm(found - other) <= 1e-2 * np.linalg.norm(moved), (name, layer, factor)
