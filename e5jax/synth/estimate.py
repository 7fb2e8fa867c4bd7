"""What a run will cost, before anything is asked: `--dry-run`."""

from collections.abc import Iterable
from itertools import islice
from math import ceil
from typing import NamedTuple

from e5jax.llm_client.completion import prompt_tokens, tokens
from e5jax.llm_client.config import LanguageModel
from e5jax.llm_client.request import Request
from e5jax.synth.config import Synth
from e5jax.synth.families import FAMILIES, Family
from e5jax.synth.plan import Asked, Plan, counts
from e5jax.synth.prompts import examples
from e5jax.synth.text_spec import Wanted

SAMPLE = 300  # requests of each family that are made to estimate all of them
TOKENS_A_WORD = {"en": 1.4}  # of replies
OTHER_TOKENS_A_WORD = 2.5
LITTLE_MORE = 1.5
TASK_TOKENS = 30
GRADE_TOKENS = 10


class Line(NamedTuple):
    """One kind of request."""

    kind: str
    requests: int
    prompt_tokens: int
    completion_tokens: int

    @property
    def tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens


def lines(plan: Plan) -> list[Line]:
    """What each family will ask for, if every first reply is taken."""
    found = []
    for family in FAMILIES:
        total = counts(plan.config)[family.name]
        if total:
            found += _family(plan, family, total)
    return found


def _family(plan: Plan, family: Family, total: int) -> Iterable[Line]:
    tasks = plan.config.tasks
    if family.brainstorms and tasks.brainstorm:
        calls = ceil(total / tasks.examples_a_task / tasks.per_call)
        one = plan.brainstorm(family, 0)
        yield Line(
            f"{family.name} tasks",
            calls,
            calls * _prompt(one),
            calls * tasks.per_call * TASK_TOKENS,
        )
    slots = plan.slots(family, examples(family.name) * SAMPLE if family.brainstorms else ())
    asked = [plan.ask(slot) for slot in islice(slots, SAMPLE)]
    prompts, replies = (
        sum(map(size, asked)) / len(asked) for size in (lambda one: _prompt(one.request), _reply)
    )
    yield Line(family.name, total, round(total * prompts), round(total * replies))
    if plan.config.judge is not None:
        yield Line(
            f"{family.name} judge", total, round(total * (replies + 150)), total * GRADE_TOKENS
        )


def relabelling(config: Synth, requests: list[Request]) -> str:
    """The table for a run that asks just these."""
    prompts, grades = (
        sum(map(_prompt, requests)),
        sum(len(request.messages[-1].content.splitlines()) for request in requests),
    )
    return table(config, [Line("relabel", len(requests), prompts, grades)])


def _prompt(request: Request) -> int:
    return prompt_tokens(request) + tokens(str(request.schema))


def _reply(asked: Asked) -> float:
    return sum(
        _words(field) * TOKENS_A_WORD.get(field.language, OTHER_TOKENS_A_WORD)
        for field in asked.wanted.values()
    )


def _words(field: Wanted) -> float:
    """Models write little more than the least they are asked for."""
    middle = (field.least + field.most) / 2
    return min(middle, max(LITTLE_MORE * field.least, middle / 2))


def cost(config: Synth, found: Iterable[Line]) -> float | None:
    """Money, or None where a model has no price."""
    prompt, completion = (
        sum(part)
        for part in zip(
            *((line.prompt_tokens, line.completion_tokens) for line in found), strict=True
        )
    )
    models = config.endpoint.models
    total = sum(model.share for model in models)
    parts = [
        _cost_of(model, prompt, completion, config.endpoint.api == "batch") for model in models
    ]
    if None in parts:
        return None
    return sum(
        part * model.share / total
        for part, model in zip(parts, models, strict=True)
        if part is not None
    )


def _cost_of(model: LanguageModel, prompt: float, completion: float, batch: bool) -> float | None:
    if model.prompt_price is None or model.completion_price is None:
        return None
    return (
        (prompt * model.prompt_price + completion * model.completion_price)
        / 1e6
        * (model.batch_price if batch else 1)
    )


def table(config: Synth, found: list[Line]) -> str:
    """Printed by `--dry-run`."""
    total = Line(
        "all", *(sum(column) for column in zip(*(line[1:] for line in found), strict=True))
    )
    rows = [
        f"{line.kind:<18}{line.requests:>12,}{line.prompt_tokens:>16,}{line.completion_tokens:>16,}"
        for line in [*found, total]
    ]
    money = cost(config, found)
    price = (
        "unknown; give every model of config.endpoint.models its prices"
        if money is None
        else f"{money:,.2f}"
    )
    return "\n".join(
        [
            f"{'':<18}{'requests':>12}{'prompt tokens':>16}{'reply tokens':>16}",
            *rows,
            f"cost: {price}",
            "Estimated from the lengths asked for, at 4 characters of a prompt or 0.4 to 0.7 words of a reply a token; "
            "replies that are asked for again come on top.",
        ]
    )
