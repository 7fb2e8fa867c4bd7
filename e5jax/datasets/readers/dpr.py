"""Retriever training data of DPR: one JSON array of objects, in which NQ, SQuAD and TriviaQA are published.

An object has `question`, `positive_ctxs`, `hard_negative_ctxs` and `negative_ctxs`; the contexts have title and text. As in
DPR's own loader, negatives are the hard ones, and the others only where there is no hard one.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from e5jax.data.compressed import chunks
from e5jax.data.json_arrays import elements
from e5jax.data.records import Example, check_example
from e5jax.datasets.readers.lines import files, name_of
from e5jax.datasets.readers.result import Options, Outcome, Rejected
from e5jax.datasets.readers.texts import passages
from e5jax.errors import RecordError

FIRST_NAMES = ("dataset", "question", "answers", "positive_ctxs")


def read(path: Path, options: Options) -> Iterator[Outcome]:
    """A file or a folder of `*.json`."""
    return read_array(path, options, FIRST_NAMES, _example)


def read_array(
    path: Path,
    options: Options,
    first_names: tuple[str, ...],
    make: Callable[[dict[str, Any], Options, str], Example],
) -> Iterator[Outcome]:
    """What `make` gives for each object of the arrays; objects begin with one of the names, and are named by their number."""
    for file in files(path, ".json"):
        source = options.source or name_of(file)
        found = elements(chunks(file, options.limits), str(file), options.limits, first_names)
        for count, element in enumerate(found, 1):  # a file may be one line
            if isinstance(element, Rejected):
                yield element
                continue
            try:
                yield check_example(
                    make(element.values, options._replace(source=source), f"{source}:{count}")
                )
            except RecordError as error:
                yield Rejected(str(file), element.number, str(error))


def _example(values: dict[str, Any], options: Options, identity: str) -> Example:
    return Example(
        id=identity,
        query=values.get("question", ""),
        positives=passages(values, "positive_ctxs"),
        negatives=passages(values, "hard_negative_ctxs") or passages(values, "negative_ctxs"),
        instruction=options.instruction,
        language=options.language,
        source=options.source,
    )
