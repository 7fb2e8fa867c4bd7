"""What a teacher (a cross-encoder, a language model as judge, people) says of pairs of query and text, read from a file."""

import math
from array import array
from pathlib import Path
from typing import Any

import numpy as np

from e5jax.data.files import objects
from e5jax.errors import ConfigError, RecordError
from e5jax.mine.corpus import key


class Teacher:
    """Scores of a JSONL file: `id` of a record, `text` or its `hash`, `score`. Raises ConfigError `file:line: reason`."""

    def __init__(self, path: Path):
        self.path = path
        numbers, ids, texts, scores = array("q"), array("Q"), array("Q"), array("d")
        for number, values in objects(path):
            try:
                name, text, score = _parse(values)
            except RecordError as error:
                raise ConfigError(f"{path}:{number}: {error}") from error
            numbers.append(number)
            ids.append(name)
            texts.append(text)
            scores.append(score)
        if not scores:
            raise ConfigError(f"--scores={path}: no scores in it")
        self.lowest, self.highest = min(scores), max(scores)
        columns = [np.array(column) for column in (ids, texts, scores)]
        order = np.lexsort(columns[1::-1])
        self._ids, self._texts, self._scores = (column[order] for column in columns)
        again = (self._ids[1:] == self._ids[:-1]) & (self._texts[1:] == self._texts[:-1])
        if (unlike := np.flatnonzero(again & (self._scores[1:] != self._scores[:-1]))).size:
            first, second = sorted(order[unlike[0] : unlike[0] + 2].tolist())
            where, other = (f"{path}:{numbers[place]}" for place in (second, first))
            raise ConfigError(f"{where}: another score for the pair of {other}; keep one of them")

    def of(self, name: str) -> dict[int, float]:
        """Scores of the record with this id, by the key of the text; empty where there are none."""
        wanted = np.uint64(key(name))
        start, stop = (int(np.searchsorted(self._ids, wanted, side)) for side in ("left", "right"))
        return dict(
            zip(self._texts[start:stop].tolist(), self._scores[start:stop].tolist(), strict=True)
        )


def _parse(values: dict[str, Any]) -> tuple[int, int, float]:
    """Keys of id and text, and the score. Other fields are the writer's own."""
    name, text, digest, score = (values.get(field) for field in ("id", "text", "hash", "score"))
    if not isinstance(name, str) or not name:
        raise RecordError("id: must be the id of a record, a string")
    if (text is None) == (digest is None):
        raise RecordError("needs either text or hash")
    if isinstance(score, bool) or not isinstance(score, int | float) or not _finite(score):
        raise RecordError(f"score: must be a finite number: not {score!r}")
    if digest is not None:
        return key(name), _of_hash(digest), float(score)
    if not isinstance(text, str):
        raise RecordError(f"text: must be a string: not {type(text).__name__}")
    return key(name), key(text), float(score)


def _finite(score: float) -> bool:
    try:
        return math.isfinite(score)
    except OverflowError:  # a whole number beyond every float
        return False


def _of_hash(digest: object) -> int:
    """The key that a hash is: 16 hexadecimal digits, BLAKE2b of 8 bytes over the UTF-8 text."""
    try:
        found = bytes.fromhex(digest) if isinstance(digest, str) else b""
    except ValueError:
        found = b""
    if len(found) != 8:
        raise RecordError(
            f"hash: must be the 16 hexadecimal digits of blake2b(text, digest_size=8): not {digest!r}"
        )
    return int.from_bytes(found, "little")
