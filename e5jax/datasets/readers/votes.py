"""ELI5: questions with answers that readers voted for. The answers with most votes are positives.

A JSONL line is KILT's, with `input` and `output`, a list of `answer` and `meta` with its `score`; or the data set's own, with
`title` and `answers`, an object with the lists `text` and `score`.
"""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from e5jax.data.records import Example
from e5jax.datasets.readers.lines import Line, examples, files
from e5jax.datasets.readers.result import Options, Outcome
from e5jax.datasets.readers.texts import identity
from e5jax.errors import RecordError
from e5jax.jsonl import parse_object


def read(path: Path, options: Options) -> Iterator[Outcome]:
    """A file or a folder of `*.jsonl`."""
    for file in files(path, ".jsonl"):
        yield from examples(file, options, partial(_example, options))


def _example(options: Options, line: Line, source: str) -> Example:
    values = parse_object(line.text)
    try:
        query, answers = _kilt(values) if "input" in values else _own(values)
        best = max((score for _, score in answers), default=0.0)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise RecordError(
            "answers: must be those of KILT, or lists of texts and scores of one length"
        ) from error
    if best < 0:
        raise RecordError(f"votes are against every answer: the best has {best:g}")
    where = f"{source}:{line.number}"
    return Example(
        id=identity(values, "id" if "input" in values else "q_id", where),
        query=query,
        positives=tuple(dict.fromkeys(text for text, score in answers if score == best)),
        instruction=options.instruction,
        language=options.language,
        source=source,
    )


def _kilt(values: dict[str, Any]) -> tuple[Any, list[tuple[Any, float]]]:
    given = [
        entry for entry in values["output"] if entry.get("answer")
    ]  # others say where an answer can be found
    return values["input"], [
        (entry["answer"], float((entry.get("meta") or {}).get("score") or 0)) for entry in given
    ]


def _own(values: dict[str, Any]) -> tuple[Any, list[tuple[Any, float]]]:
    answers = values["answers"]
    return values["title"], [
        (text, float(score)) for text, score in zip(answers["text"], answers["score"], strict=True)
    ]
