"""A model's grade of an example."""

import json
from typing import Any

from e5jax.llm_client.request import Failure, Request, Session
from e5jax.synth.config import Judge
from e5jax.synth.plan import Asked, Plan, example
from e5jax.synth.prompts import fill, harmless, templates
from e5jax.synth.reasons import UnfitError
from e5jax.synth.reply import read

SHOWN = 4_000  # characters of each text
GRADES = range(1, 6)
SCHEMA = {
    "type": "object",
    "properties": {
        "grade": {"type": "integer", "enum": list(GRADES), "description": "a grade from 1 to 5"}
    },
    "required": ["grade"],
    "additionalProperties": False,
}


async def grade(
    session: Session, plan: Plan, asked: Asked, values: dict[str, str], judge: Judge | None
) -> int | None:
    """The grade, None without a judge. Raises UnfitError below the judge's threshold."""
    if judge is None:
        return None
    outcome = await session.complete(_request(plan, asked, values, judge))
    if isinstance(outcome, Failure):
        raise UnfitError("no-grade", f"{outcome.reason}: {outcome.detail}")
    found = grade_of(read(outcome).get("grade"))
    if found < judge.least:
        raise UnfitError("grade", f"{found} of 5; {judge.least} is wanted")
    return found


def grade_of(value: object) -> int:
    """A whole number from 1 to 5. Raises UnfitError."""
    if isinstance(value, bool) or not isinstance(value, int) or value not in GRADES:
        raise UnfitError("schema", f"no grade from 1 to 5: {value!r:.40}")
    return value


def _request(plan: Plan, asked: Asked, values: dict[str, str], judge: Judge) -> Request:
    made = example(asked, values)
    shown: dict[str, Any] = {
        "instruction": made.instruction,
        "query": made.query,
        "positive": made.positives[0],
    }
    if made.negatives:
        shown["negative"] = made.negatives[0]
    text = json.dumps(
        {name: harmless(value, SHOWN) for name, value in shown.items()}, ensure_ascii=False
    )
    prompt = fill(templates("judge.generate")[0], {"example": text})
    return plan.request(
        f"{asked.slot.id}/judge", prompt, SCHEMA, asked.attempt, temperature=judge.temperature
    )
