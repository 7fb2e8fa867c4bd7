"""HotpotQA's training file: one JSON array of questions, each with ten paragraphs.

The paragraphs that hold supporting facts are positives, the distractors negatives. A paragraph is `[title, sentences]`, a
supporting fact `[title, number of the sentence]`.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from e5jax.data.records import Example
from e5jax.datasets.readers.dpr import read_array
from e5jax.datasets.readers.result import Options, Outcome
from e5jax.datasets.readers.texts import identity, passage
from e5jax.errors import RecordError

# No object is inside another, so any of its names may be the first.
FIRST_NAMES = ("_id", "supporting_facts", "question", "context", "answer", "type", "level")


def read(path: Path, options: Options) -> Iterator[Outcome]:
    """A file or a folder of `*.json`."""
    return read_array(path, options, FIRST_NAMES, _example)


def _example(values: dict[str, Any], options: Options, where: str) -> Example:
    facts = {title for title, _ in _pairs(values, "supporting_facts")}
    paragraphs = [
        (title in facts, passage({"title": title, "text": _joined(texts)}, "context"))
        for title, texts in _pairs(values, "context")
    ]
    return Example(
        id=identity(values, "_id", where),
        query=values.get("question", ""),
        positives=tuple(text for good, text in paragraphs if good),
        negatives=tuple(text for good, text in paragraphs if not good),
        instruction=options.instruction,
        language=options.language,
        source=options.source,
    )


def _pairs(values: dict[str, Any], name: str) -> list[tuple[str, Any]]:
    pairs = values.get(name)
    if not isinstance(pairs, list) or not all(
        isinstance(pair, list) and len(pair) == 2 and isinstance(pair[0], str) for pair in pairs
    ):
        raise RecordError(f"{name}: must be a list of pairs that begin with a title")
    return [(first, second) for first, second in pairs]


def _joined(sentences: Any) -> str:
    if not isinstance(sentences, list) or not all(
        isinstance(sentence, str) for sentence in sentences
    ):
        raise RecordError("context: must hold lists of sentences")
    return "".join(sentences)  # each brings the blank before it
