"""Why a reply or a task is not taken, and what follows. With `faults` this is the one table, which docs/synth.md repeats."""

from typing import Literal, NamedTuple

Action = Literal["regenerate", "drop"]


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


class Reason(NamedTuple):
    """One row."""

    action: Action
    when: str


REASONS = {
    "truncated": Reason(
        "regenerate",
        "a reply ended at `sampling.max_tokens`; the next attempt may have twice as many",
    ),
    "truncated-twice": Reason("drop", "a reply ended at twice as many, too"),
    "filtered": Reason("regenerate", "a content filter cut a reply off"),
    "refused": Reason("regenerate", "a reply is a refusal, by the endpoint's word or its own"),
    "unfinished": Reason(
        "regenerate",
        "a reply ended otherwise: a tool call, reasoning without an answer, no choices, no content",
    ),
    "empty": Reason("regenerate", "a reply, or one of its texts, is blank"),
    "too-large": Reason(
        "regenerate", "a reply has more than 200,000 bytes, or a text more than 20,000 characters"
    ),
    "malformed": Reason(
        "regenerate",
        "a reply is no strict JSON object: text around it, NaN, a name twice, deep nesting",
    ),
    "schema": Reason("regenerate", "fields are missing, or not asked for, or no strings"),
    "characters": Reason(
        "regenerate",
        "a text holds control characters, half of a surrogate pair, or replacement characters",
    ),
    "special-token": Reason(
        "regenerate", "a text holds a special token of a tokenizer or chat template, such as `</s>`"
    ),
    "placeholder": Reason(
        "regenerate", "a text is the name of its field, a placeholder, or three dots"
    ),
    "short": Reason(
        "regenerate", "a text has fewer words than asked for, by more than `checks.length_slack`"
    ),
    "long": Reason(
        "regenerate", "a text has more words than asked for, by more than `checks.length_slack`"
    ),
    "same-text": Reason("regenerate", "two texts of a reply are equal: query, positive, negative"),
    "copied": Reason(
        "regenerate",
        "a text repeats the prompt, the task or the document: `checks.copied` of its 8-grams",
    ),
    "label-in-text": Reason("regenerate", "the text to classify spells out one of its labels"),
    "language": Reason(
        "regenerate", "a text is in another language, as sure as `checks.language_confidence`"
    ),
    "grade": Reason("regenerate", "the judge gave less than `judge.least`"),
    "duplicate": Reason(
        "regenerate", "an earlier example has the same query, or the same positive"
    ),
    "near-duplicate": Reason(
        "regenerate", "an earlier example has nearly the same: Jaccard similarity of `checks.near`"
    ),
    "frequent-answer": Reason(
        "regenerate", "`checks.answer_share` of the family's examples have this positive already"
    ),
    "no-positive": Reason("drop", "relabelling found no candidate that answers the query"),
    "no-negative": Reason("drop", "relabelling found no candidate that does not"),
    "no-grade": Reason("drop", "the judge gave no reply"),
    "task-form": Reason("drop", "a task is no line of 3 to 60 words, or holds a placeholder"),
    "task-duplicate": Reason(
        "drop", "a task resembles an earlier one, or an example in the prompt"
    ),
    "task-avoided": Reason(
        "drop", "a task resembles an instruction of an evaluation, or of the files in `tasks.avoid`"
    ),
}


def rows() -> str:
    """As the documentation shows them, below those of `faults`. Every reply is paid for."""
    return "\n".join(
        f"| `{name}` | {row.when} | {row.action} | yes |" for name, row in REASONS.items()
    )
