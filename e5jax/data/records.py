"""Records of data, batches and metrics, and the dimension alphabet.

Each dimension has the same letter in all annotations and einsum strings:

    b batch   q queries   p passages   t tokens      d model    h heads   k kv heads   e head size
    f ff      v vocab     l layers     r LoRA rank   c chunks   n rows    s segments per row
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

SCHEMA = 1  # version of the format of a line, which docs/data.md describes

_LANGUAGE = re.compile(r"([a-z]{2,3}(-[A-Za-z0-9]{2,8})*)?")


class Example(NamedTuple):
    """One training example: a JSONL line with these names."""

    id: str
    query: str
    positives: tuple[str, ...]
    negatives: tuple[str, ...] = ()
    instruction: str = ""  # the bare task; the query template wraps it
    language: str = ""  # ISO 639 code, such as en or zh-Hant; empty: unknown
    source: str = ""
    positive_scores: tuple[float, ...] = ()  # a teacher's score of each text; empty: not scored
    negative_scores: tuple[float, ...] = ()

    def to_json(self) -> str:
        """Returns one line, without its newline."""
        return json.dumps({"schema": SCHEMA, **self._asdict()}, ensure_ascii=False, allow_nan=False)

    def select(self, positives: Sequence[int], negatives: Sequence[int]) -> "Example":
        """Returns the example with the texts at these indices, in this order, and their scores."""
        return self._replace(
            positives=_select(self.positives, positives),
            negatives=_select(self.negatives, negatives),
            positive_scores=_select(self.positive_scores, positives),
            negative_scores=_select(self.negative_scores, negatives),
        )


def _select(values: tuple, indices: Sequence[int]) -> tuple:
    return tuple(values[i] for i in indices) if values else ()


def parse_example(line: str | bytes, where: str) -> Example:
    """Parses one JSONL line. Raises ConfigError `where: reason`."""
    try:
        return make_example(parse_object(line), where)
    except RecordError as error:
        raise ConfigError(f"{where}: {error}") from error


def make_example(values: Mapping[str, Any], identity: str) -> Example:
    """Returns the example with these fields, and with `identity` as its id if it has none.

    Raises RecordError.
    """
    schema = values.get("schema", SCHEMA)
    if isinstance(schema, bool) or schema != SCHEMA:
        raise RecordError(
            f"schema {schema!r}: this e5jax reads schema {SCHEMA}; convert the file, "
            "or use the e5jax that wrote it"
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
    """Returns the example with its scores as floats. Raises RecordError if a field is invalid."""
    for name in ("id", "query", "instruction", "language", "source"):
        _check_text(name, getattr(example, name), name in ("id", "query"))
    if not _LANGUAGE.fullmatch(example.language):
        raise RecordError(
            "language: must be an ISO code such as en or zh-Hant, or empty: "
            f"not {example.language!r}"
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


def _check_text(name: str, text: object, required: bool) -> None:
    if not isinstance(text, str):
        raise RecordError(
            f"{name}: must be a string, or contain strings: not {type(text).__name__}"
        )
    if required and not text.strip():
        raise RecordError(f"{name}: missing or empty")
    if "\0" in text:
        raise RecordError(f"{name}: contains a NUL character")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise RecordError(
            f"{name}: not Unicode text: lone surrogate at character {error.start}"
        ) from error


def _scores(name: str, scores: tuple, texts: int) -> tuple[float, ...]:
    if scores and len(scores) != texts:
        raise RecordError(f"{name}: needs one score per text: {len(scores)} scores, {texts} texts")
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
    """One example as token ids."""

    query: list[int]
    passages: list[list[int]]  # positives, then hard negatives; at most as many as in the layout
    temperature: float
    in_batch: bool  # whether the query is scored against all passages, or its own only
    positives: int = 1  # number of positives among the passages
    # Query and passages before templates; empty: equal texts are recognised by their ids alone.
    texts: Sequence[str] = ()


class Batch(NamedTuple):
    """A global batch in packed form.

    A row contains several texts in sequence. `segments` numbers the texts of a row from 1, and 0 is
    padding; `positions` counts from 0 within each text; `ends` is the index of each text's last
    token in its row, or -1 if the row has fewer texts.

    The rows of a chunk are those of virtual shard 0, then of shard 1, and so on. `queries` and
    `passages` locate the texts of each shard: flat indices into its own
    `[c · rows of the shard · s]`. Passages are ordered by example: its positives, then its hard
    negatives, with -1 for those that it lacks. `query_texts` and `passage_texts` number the texts:
    equal texts have equal numbers (see `packing.number_texts`), and -1 is no text. `temperatures`
    and `in_batch` are as in `Ids`.
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
    accuracy: Float[Array, ""]  # share of pairs with the highest score; a query's pairs count as 1
    gradient_norm: Float[Array, ""]  # before clipping
    learning_rate: Float[Array, ""]
    real_tokens: Int[Array, ""]
    computed_tokens: Int[Array, ""]  # with padding, without empty chunks
    squared_lengths: Float[Array, ""]  # sum over texts of length², for counting attention FLOPs
    finite: Float[Array, ""]  # 0 if the loss or the gradient was not finite
    skipped: Int[Array, ""]  # updates that were not applied so far
    in_a_row: Int[Array, ""]  # skipped updates up to this one; 0: this one was applied
