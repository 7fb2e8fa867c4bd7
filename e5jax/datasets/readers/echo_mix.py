"""The public training mix of E5-Mistral as the authors of echo-embeddings publish it: one JSONL file a set.

A line has `query`, `positive` and `negative`, bare texts, each a string or a list. The instruction follows from the name
of the file (see `sets`). Where a set has two, lines take them in turn, unless the file is one of the halves
`NAME_split1` and `NAME_split2` that LLM2Vec trains on. Documents have no instruction, as in the paper.
"""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from e5jax.data.records import Example
from e5jax.datasets.public_sets import in_mix
from e5jax.datasets.readers.lines import Line, examples, files, name_of
from e5jax.datasets.readers.result import Options, Outcome
from e5jax.datasets.readers.rows import LABELS
from e5jax.datasets.readers.texts import texts
from e5jax.errors import RecordError
from e5jax.jsonl import parse_object


def read(path: Path, options: Options) -> Iterator[Outcome]:
    """A file or a folder of `*.jsonl`; an instruction of the options goes before that of the set."""
    for file in files(path, ".jsonl"):
        found = in_mix(name_of(file))
        instructions = (
            (options.instruction,) if options.instruction else found[1] if found else ("",)
        )
        yield from examples(file, options, partial(_example, instructions, options))


def _example(instructions: tuple[str, ...], options: Options, line: Line, source: str) -> Example:
    values = parse_object(line.text)
    if label := next((name for name in LABELS if name in values), None):
        raise RecordError(f"label in a format that has none: {label}; `pairs` reads labels")
    query = texts(values, "query")
    if len(query) > 1:
        raise RecordError(f"query: must be one string: not {len(query)}")
    return Example(
        id=f"{source}:{line.number}",
        query="".join(query) if all(isinstance(text, str) for text in query) else "",
        positives=texts(values, "positive"),
        negatives=texts(values, "negative"),
        instruction=instructions[(line.number - 1) % len(instructions)],
        language=options.language,
        source=source,
    )
