"""Data records and the dimension alphabet.

Dimensions, the same letter everywhere (annotations, einsum strings):

    b batch     q queries   p passages   t tokens    d model      h heads     k kv heads   e head size
    f ff        v vocab     l layers     r LoRA rank c chunks     n rows      s segments a row
"""

import json
from typing import NamedTuple

from jaxtyping import Array, Float, Int
from numpy import ndarray

from e5jax.errors import ConfigError


class Example(NamedTuple):
    """One training example, one JSONL line with these names."""

    id: str
    query: str
    positive: str
    negatives: tuple[str, ...] = ()
    instruction: str = ""  # the bare task; the query template wraps it
    source: str = ""

    def to_json(self) -> str:
        """One line, without its newline."""
        return json.dumps(self._asdict(), ensure_ascii=False)


def parse_example(line: str | bytes, where: str) -> Example:
    """Reads one JSONL line; raises ConfigError `where: reason` for anything but an object with the fields above."""
    try:
        values = json.loads(line)
    except ValueError as error:
        raise ConfigError(f"{where}: not JSON ({error})") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{where}: not a JSON object")
    if unknown := sorted(set(values) - set(Example._fields)):
        raise ConfigError(f"{where}: unknown fields {', '.join(unknown)}; known are {', '.join(Example._fields)}")
    for name in ("id", "query", "positive", "instruction", "source"):
        if not isinstance(values.get(name, ""), str):
            raise ConfigError(f"{where}: {name} must be a string")
    for name in ("query", "positive"):
        if not values.get(name, "").strip():
            raise ConfigError(f"{where}: {name} is missing or empty")
    negatives = values.pop("negatives", [])
    if not isinstance(negatives, list) or not all(isinstance(text, str) and text.strip() for text in negatives):
        raise ConfigError(f"{where}: negatives must be a list of non-empty strings")
    return Example(**{"id": where, **values}, negatives=tuple(negatives))


class Batch(NamedTuple):
    """A global batch in packed form.

    Rows hold texts one behind the other: `segments` numbers a row's texts from 1, 0 is padding; `positions` counts from 0
    inside each text; `ends` is the place of each text's last token in its row, -1 where a row has fewer texts.
    The rows of a chunk are those of virtual shard 0, then 1, and so on. `queries` and `passages` say for every shard where
    its texts are: flat indices into its own `[c · rows of the shard · s]`. Passages are example by example: the positive,
    then its hard negatives.
    """

    tokens: Int[Array | ndarray, "c n t"]
    segments: Int[Array | ndarray, "c n t"]
    positions: Int[Array | ndarray, "c n t"]
    ends: Int[Array | ndarray, "c n s"]
    queries: Int[Array | ndarray, "shards queries"]
    passages: Int[Array | ndarray, "shards passages"]


class Metrics(NamedTuple):
    """Scalars of one training step, on the device until the next step has been started."""

    loss: Float[Array, ""]
    accuracy: Float[Array, ""]  # share of queries whose own positive scores highest in the batch
    gradient_norm: Float[Array, ""]  # before clipping
    learning_rate: Float[Array, ""]
    real_tokens: Int[Array, ""]
    computed_tokens: Int[Array, ""]  # padding included, empty chunks left out
    squared_lengths: Float[Array, ""]  # sum over texts of length², for counting attention FLOPs
    finite: Float[Array, ""]  # 0 when loss or gradient was not finite and the state was left unchanged
