"""Why a reply or a task is not taken, and what follows: the one table in the code, which docs/synth.md repeats.

What goes wrong before there is a reply is in the client's table.
"""

from typing import Literal, NamedTuple

Action = Literal["retry", "regenerate", "drop", "stop"]


class UnfitError(ValueError):
    """A reply cannot be used."""

    def __init__(self, reason: str, detail: str):
        assert reason in REASONS  # documented
        super().__init__(f"{reason}: {detail}")
        self.reason, self.detail = reason, detail


class Rejection(NamedTuple):
    """One line of rejects.jsonl."""

    id: str
    attempt: int
    reason: str
    detail: str
    model: str
    excerpt: str  # the beginning of the reply


REASONS: dict[str, Action] = {
    "truncated": "regenerate",  # once, with twice as many tokens
    "filtered": "regenerate",
    "refused": "regenerate",
    "unfinished": "regenerate",
    "empty": "regenerate",
    "too-large": "regenerate",
    "not-json": "regenerate",
    "schema": "regenerate",
    "characters": "regenerate",
    "special-token": "regenerate",
    "placeholder": "regenerate",
    "too-short": "regenerate",
    "too-long": "regenerate",
    "copied": "regenerate",
    "same-text": "regenerate",
    "label-in-text": "regenerate",
    "language": "regenerate",
    "duplicate": "regenerate",
    "near-duplicate": "regenerate",
    "frequent-answer": "regenerate",
    "grade": "regenerate",
    "truncated-twice": "drop",
    "no-positive": "drop",
    "no-negative": "drop",
    "task-form": "drop",
    "task-duplicate": "drop",
    "task-avoided": "drop",
    "no-reply": "drop",
}
