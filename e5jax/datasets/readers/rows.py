"""An example from a row with named columns, whatever file it is from.

Names that are looked for: query | anchor | question; positive | positives | pos | answer; negative | negatives | neg and
negative_1, negative_2, …; Tevatron's positive_passages and negative_passages; SimCSE's sent0, sent1 and hard_neg.
`options.columns` names others. A label (label, score, similarity, …) says whether the pair is a positive one: 1 is, 0 and what is
below 0 are not; other numbers need `options.threshold`.
"""

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

from e5jax.data.records import Example
from e5jax.datasets.readers.result import Options
from e5jax.datasets.readers.texts import identity, passages, texts
from e5jax.errors import RecordError

LABELS = (
    "label",
    "labels",
    "gold_label",
    "is_duplicate",
    "relevance",
    "score",
    "similarity_score",
    "similarity",
)
_NAMES = {
    "id": ("id", "query_id", "_id"),
    "query": ("query", "anchor", "question", "sent0"),
    "positive": ("positive", "positives", "pos", "positive_passages", "answer", "sent1"),
    "negative": ("negative", "negatives", "neg", "negative_passages", "hard_neg"),
    "instruction": ("instruction", "prompt"),
    "language": ("language",),
    "label": LABELS,
}
_NUMBERED = re.compile(r"negative_\d+")


def columns(names: Iterable[str], options: Options) -> dict[str, list[str]]:
    """Which columns hold which part of an example. Raises RecordError if query or positive cannot be told."""
    have = list(names)
    if unknown := sorted(set(options.columns) - set(_NAMES)):
        raise RecordError(f"columns: {', '.join(unknown)} cannot be given; {', '.join(_NAMES)} can")
    if missing := sorted(set(options.columns.values()) - set(have)):
        raise RecordError(f"columns: there is no {', '.join(missing)} among {', '.join(have)}")
    found = {part: _find(part, have, options) for part in _NAMES}
    if not found["query"] or not found["positive"]:
        raise RecordError(
            f"columns: no query and positive among {', '.join(have) or 'none'}; say which they are"
        )
    if options.threshold is not None and not found["label"]:
        raise RecordError(
            f"columns: no label for the threshold among {', '.join(have)}; say which it is"
        )
    return found


def _find(part: str, have: list[str], options: Options) -> list[str]:
    if part in options.columns:
        return [options.columns[part]]
    named = [name for name in _NAMES[part] if name in have][:1]
    return named + (
        sorted(filter(_NUMBERED.fullmatch, have), key=lambda n: int(n[9:]))
        if part == "negative"
        else []
    )


def row_example(
    row: Mapping[str, Any], parts: Mapping[str, list[str]], options: Options, where: str
) -> Example:
    """The example; `where` is its id if the row brings none. Raises RecordError."""
    for name in parts["label"]:
        check_label(row.get(name), name, options.threshold)
    return Example(
        id=identity(row, parts["id"][0], where) if parts["id"] else where,
        query=_one(row, parts["query"]),
        positives=_all(row, parts["positive"]),
        negatives=_all(row, parts["negative"]),
        instruction=_one(row, parts["instruction"]) or options.instruction,
        language=_one(row, parts["language"]) or options.language,
        source=options.source,
    )


def check_label(value: Any, name: str, threshold: float | None) -> None:
    """Raises RecordError unless the label or score says that the pair is a positive one."""
    number = _number(value)
    if number is None:
        raise RecordError(f"label is not a number: {name} is {value!r}")
    if threshold is not None:
        if number < threshold:
            raise RecordError(
                f"label is below the threshold: {name} is {number:g}, not {threshold:g}"
            )
    elif number <= 0:
        raise RecordError(f"label says no match: {name} is {number:g}")
    elif number != 1:
        raise RecordError(
            f"label needs a threshold: {name} is {number:g}; --threshold=X takes pairs from X on"
        )


def _number(value: Any) -> float | None:
    """The number that a label is, perhaps written as text; None for anything else."""
    if isinstance(value, str):
        value = {"true": 1, "false": 0}.get(value.strip().lower(), value)
    if not isinstance(value, str | int | float):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _one(row: Mapping[str, Any], names: list[str]) -> str:
    value = row.get(names[0]) if names else None
    return "" if value is None else value


def _all(row: Mapping[str, Any], names: list[str]) -> tuple[str, ...]:
    return tuple(
        text
        for name in names
        for text in (passages if name.endswith("passages") else texts)(row, name)
    )
