"""The families of examples, as a table: what is asked for, which field becomes which part of a training example."""

import re
from typing import NamedTuple

from e5jax.synth.text_spec import Wanted, describe

LABEL = "1 to 8 words"
UNITS = {"sentence": "4 to 40 words", "phrase": "2 to 15 words", "passage": "25 to 250 words"}
SIMILAR, PARALLEL = (
    "Retrieve semantically similar text.",
    "Retrieve parallel sentences.",
)  # arXiv 2401.00368, table 16


class Part(NamedTuple):
    """A field of the reply. `length` names the placeholder that says how long it is, or says so itself."""

    name: str
    what: str
    length: str
    target: bool = False  # in the target language of a pair


class Family(NamedTuple):
    """One row. `fresh` are the parts that no two examples have in common; where there are both, either suffices to be equal."""

    name: str
    query: Part
    positive: Part | None  # None: the document that the query is for
    negative: Part | None
    instruction: str = ""  # empty: the task, which was brainstormed, or the configuration's
    brainstorms: bool = False
    fresh: tuple[str, ...] = ("query",)
    label: bool = (
        False  # the positive is a class of the task: it recurs, and stands nowhere in the query
    )

    @property
    def roles(self) -> dict[str, Part]:
        """The fields of a reply by what they become."""
        named = {"query": self.query, "positive": self.positive, "negative": self.negative}
        return {role: part for role, part in named.items() if part is not None}

    @property
    def parts(self) -> tuple[Part, ...]:
        """The fields of a reply, in their order."""
        return tuple(self.roles.values())

    @property
    def pairs(self) -> bool:
        """Whether it takes two languages."""
        return any(part.target for part in self.parts)

    @property
    def field(self) -> str:
        """Its name in the configuration."""
        return self.name.replace("-", "_")


def _with_tasks(
    name: str,
    *parts: tuple[str, str, str],
    fresh: tuple[str, ...] = ("query",),
    label: bool = False,
) -> Family:
    query, positive, *negatives = (Part(*part) for part in parts)
    return Family(
        name,
        query,
        positive,
        next(iter(negatives), None),
        brainstorms=True,
        fresh=fresh,
        label=label,
    )


FAMILIES = (
    _with_tasks(
        "short-long",
        ("user_query", "what a user types", "query_length"),
        ("positive_document", "a document that answers the query", "num_words"),
        (
            "hard_negative_document",
            "a document that seems to answer the query and does not",
            "num_words",
        ),
        fresh=("query", "positive"),
    ),
    _with_tasks(
        "long-short",
        ("input_text", "the text to classify", "num_words"),
        ("label", "its class", LABEL),
        ("misleading_label", "a class that is less right", LABEL),
        label=True,
    ),
    _with_tasks(
        "short-short",
        ("input", "what is given", "1 to 30 words"),
        ("positive_document", "what belongs to it", "1 to 30 words"),
    ),
    _with_tasks(
        "long-long",
        ("input", "the document that is given", "num_words"),
        ("positive_document", "the document that belongs to it", "num_words"),
        fresh=("query", "positive"),
    ),
    Family(
        "sts",
        Part("S1", "a text", "unit"),
        Part("S2", "a text that means nearly the same", "unit"),
        Part("S3", "a text that shares words and means something else", "unit"),
        SIMILAR,
    ),
    Family(
        "bitext",
        Part("S1", "the original", "unit"),
        Part("S2", "its translation", "unit", target=True),
        Part("S3", "a translation with faults", "unit", target=True),
        PARALLEL,
        fresh=("positive",),
    ),
    Family(
        "grounded",
        Part("user_query", "what a user types", "query_length"),
        None,
        Part("hard_negative_document", "a document that answers the query less well", "document"),
    ),
)

BY_NAME = {family.name: family for family in FAMILIES}

_LENGTHS = (
    (re.compile(r"less than (\d+)"), lambda a: (1, max(int(a) - 1, 1))),
    (re.compile(r"(?:at least|more than) (\d+)"), lambda a: (int(a), 4 * int(a))),
    (re.compile(r"(\d+) ?(?:to|-|–) ?(\d+)"), lambda a, b: (int(a), int(b))),
    (re.compile(r"(\d+)"), lambda a: (max(6 * int(a) // 10, 1), 14 * int(a) // 10)),
)


def bounds(length: str) -> tuple[int, int]:
    """Fewest and most words of `less than 5 words`, `at least 50 words`, `5 to 15 words`, `200 words`. Raises ValueError."""
    for pattern, made in _LENGTHS:
        if found := pattern.match(length):
            return made(*found.groups())
    raise ValueError(
        f"{length!r} is no length; write '200 words', '5 to 15 words', 'less than 5 words' or 'at least 50 words'"
    )


def wanted(
    family: Family, choices: dict[str, str], language: str, target: str
) -> dict[str, Wanted]:
    """For each field of the reply its language and its length."""

    def one(part: Part) -> Wanted:
        text = choices.get(part.length, part.length)
        return Wanted(target if part.target else language, *bounds(UNITS.get(text, text)))

    return {part.name: one(part) for part in family.parts}


def schema(family: Family, fields: dict[str, Wanted]) -> dict:
    """The JSON schema of a reply: these strings, all of them, and nothing else."""
    texts = {
        part.name: {"type": "string", "description": describe(part.what, fields[part.name])}
        for part in family.parts
    }
    return {
        "type": "object",
        "properties": texts,
        "required": list(texts),
        "additionalProperties": False,
    }
