"""Our own JSONL, described in docs/data.md; the generator writes it too."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from e5jax.data.records import Example, make_example
from e5jax.datasets.readers.lines import Line, examples, files
from e5jax.datasets.readers.result import Options, Outcome
from e5jax.jsonl import parse_object


def read(path: Path, options: Options) -> Iterator[Outcome]:
    """A file or a folder of `*.jsonl`; what a line says goes before the options."""
    for file in files(path, ".jsonl"):
        yield from examples(file, options, partial(_example, options))


def _example(options: Options, line: Line, source: str) -> Example:
    example = make_example(parse_object(line.text), f"{source}:{line.number}")
    return example._replace(
        instruction=example.instruction or options.instruction,
        language=example.language or options.language,
        source=example.source or source,
    )
