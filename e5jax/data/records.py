"""Data records and the dimension alphabet.

Dimensions, the same letter everywhere (annotations, einsum strings):

    b batch     q queries   p passages   t tokens    d model      h heads     k kv heads   e head size
    f ff        v vocab     l layers     r LoRA rank c chunks     n rows      s segments a row
"""

import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from jaxtyping import Array, Bool, Float, Int
from numpy import ndarray

from e5jax.errors import ConfigError, RecordError
from e5jax.jsonl import parse_object

SCHEMA = 1  # of a line; docs/data.md describes it

_LANGUAGE = re.compile(r"([a-z]{2,3}(-[A-Za-z0-9]{2,8})*)?")


class Example(NamedTuple):
    """One training example, one JSONL line with these names."""

    id: str
    query: str
    positives: tuple[str, ...]
    negatives: tuple[str, ...] = ()
    instruction: str = ""  # the bare task; the query template wraps it
    language: str = (
        ""  # ISO 639 code, with script or region where it matters: en, zh-Hant; empty: not known
    )
    source: str = ""
    positive_scores: tuple[float, ...] = ()  # what a teacher gave each text; empty: not scored
    negative_scores: tuple[float, ...] = ()

    def to_json(self) -> str:
        """One line, without its newline."""
        return json.dumps({"schema": SCHEMA, **self._asdict()}, ensure_ascii=False, allow_nan=False)

    def only(self, positives: Sequence[int], negatives: Sequence[int]) -> "Example":
        """Keeps the texts at these places, in this order, with their scores."""
        return self._replace(
            positives=_take(self.positives, positives),
            negatives=_take(self.negatives, negatives),
            positive_scores=_take(self.positive_scores, positives),
            negative_scores=_take(self.negative_scores, negatives),
        )


def _take(values: tuple, places: Sequence[int]) -> tuple:
    return tuple(values[i] for i in places) if values else ()


def parse_example(line: str | bytes, where: str) -> Example:
    """Reads one JSONL line; raises ConfigError `where: reason` for anything but an object with the fields above."""
    try:
        return make_example(parse_object(line), where)
    except RecordError as error:
        raise ConfigError(f"{where}: {error}") from error


def make_example(values: Mapping[str, Any], identity: str) -> Example:
    """An example from the fields of a line; `identity` is its id if it brings none. Raises RecordError."""
    schema = values.get("schema", SCHEMA)
    if isinstance(schema, bool) or schema != SCHEMA:
        raise RecordError(
            f"schema {schema!r}: this e5jax reads schema {SCHEMA}; convert the file, or use the e5jax that wrote it"
        )
    if "positive" in values:
        raise RecordError(
            'positive: the field is called positives and is a list: "positives": ["…"]'
        )
    if unknown := sorted(set(values) - {"schema", *Example._fields}):
        raise RecordError(
            f"unknown fields: {', '.join(unknown)}; known are {', '.join(Example._fields)}"
        )
    for name in ("positives", "negatives", "positive_scores", "negative_scores"):
        if not isinstance(values.get(name, []), list):
            raise RecordError(f"{name}: must be a list")
    fields = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in values.items()
        if name != "schema"
    }
    return check_example(Example(**{"id": identity, "query": "", "positives": (), **fields}))


def check_example(example: Example) -> Example:
    """The example with its scores as floats, if all its fields are what they should be. Raises RecordError."""
    for name in ("id", "query", "instruction", "language", "source"):
        _check_text(name, getattr(example, name), name in ("id", "query"))
    if not _LANGUAGE.fullmatch(example.language):
        raise RecordError(
            f"language: must be an ISO code such as en or zh-Hant, or empty: not {example.language!r}"
        )
    if not example.positives:
        raise RecordError("positives: missing or empty")
    for name, texts in (("positives", example.positives), ("negatives", example.negatives)):
        for text in texts:
            _check_text(name, text, True)
    return example._replace(
        positive_scores=_scores("positive_scores", example.positive_scores, len(example.positives)),
        negative_scores=_scores("negative_scores", example.negative_scores, len(example.negatives)),
    )


def _check_text(name: str, text: object, needed: bool) -> None:
    if not isinstance(text, str):
        raise RecordError(f"{name}: must be a string, or hold strings: not {type(text).__name__}")
    if needed and not text.strip():
        raise RecordError(f"{name}: missing or empty")
    if "\0" in text:
        raise RecordError(f"{name}: holds a NUL character")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise RecordError(
            f"{name}: not Unicode text: lone surrogate at character {error.start}"
        ) from error


def _scores(name: str, scores: tuple, texts: int) -> tuple[float, ...]:
    if scores and len(scores) != texts:
        raise RecordError(f"{name}: needs one score a text: {len(scores)} scores, {texts} texts")
    try:
        numbers = tuple(
            float(score)
            for score in scores
            if isinstance(score, int | float) and not isinstance(score, bool)
        )
    except OverflowError:
        numbers = ()
    if len(numbers) < len(scores) or not all(map(math.isfinite, numbers)):
        raise RecordError(f"{name}: must be finite numbers")
    return numbers


class Ids(NamedTuple):
    """One example as token ids, and what its query is scored against."""

    query: list[int]
    passages: list[
        list[int]
    ]  # positives, then hard negatives: any numbers of them up to the batch's
    temperature: float
    in_batch: bool  # False: its own passages only; True: all passages of the global batch
    positives: int = 1  # of the passages
    texts: Sequence[
        str
    ] = ()  # query and passages before templates; empty: texts are known by their ids alone


class Batch(NamedTuple):
    """A global batch in packed form.

    Rows hold texts one behind the other: `segments` numbers a row's texts from 1, 0 is padding; `positions` counts from 0
    inside each text; `ends` is the place of each text's last token in its row, -1 where a row has fewer texts.
    The rows of a chunk are those of virtual shard 0, then 1, and so on. `queries` and `passages` say for every shard where
    its texts are: flat indices into its own `[c · rows of the shard · s]`. Passages are example by example: its positives,
    then its hard negatives, -1 in place of those that it lacks. `query_texts` and `passage_texts` are numbers by which
    the loss knows equal texts (`packing.number_texts`), -1 is the place of none. Temperatures and `in_batch` are as in `Ids`.
    """

    tokens: Int[Array | ndarray, "c n t"]
    segments: Int[Array | ndarray, "c n t"]
    positions: Int[Array | ndarray, "c n t"]
    ends: Int[Array | ndarray, "c n s"]
    queries: Int[Array | ndarray, "shards queries"]
    passages: Int[Array | ndarray, "shards passages"]
    query_texts: Int[Array | ndarray, "shards queries"]
    passage_texts: Int[Array | ndarray, "shards passages"]
    temperatures: Float[Array | ndarray, "shards queries"]
    in_batch: Bool[Array | ndarray, "shards queries"]


class Metrics(NamedTuple):
    """Scalars of one training step, on the device until the next step has been started."""

    loss: Float[Array, ""]
    accuracy: Float[
        Array, ""
    ]  # share of pairs whose own score is the highest, those of a query together counting as one
    gradient_norm: Float[Array, ""]  # before clipping
    learning_rate: Float[Array, ""]
    real_tokens: Int[Array, ""]
    computed_tokens: Int[Array, ""]  # padding included, empty chunks left out
    squared_lengths: Float[Array, ""]  # sum over texts of length², for counting attention FLOPs
    finite: Float[Array, ""]  # 0 when loss or gradient was not
    skipped: Int[Array, ""]  # updates that were not made, up to now
    in_a_row: Int[Array, ""]  # of them the last ones; 0: this one was made
