"""RocketQA's training TSV, in which DuReader-retrieval is published: `dual.train.tsv`, without a header.

A line has query, title and text of a positive, title and text of a hard negative, and one more field. Lines of one query that
follow each other are one example.
"""

from collections.abc import Iterator
from pathlib import Path

from e5jax.data.records import Example, check_example
from e5jax.datasets.readers.lines import Line, files, lines, name_of
from e5jax.datasets.readers.result import Options, Outcome, Rejected
from e5jax.datasets.readers.texts import passage
from e5jax.errors import RecordError

_NO_TITLE = ("-", "null")
FIELDS = 6


def read(path: Path, options: Options) -> Iterator[Outcome]:
    """A file or a folder of `*.tsv`."""
    for file in files(path, ".tsv"):
        named = options._replace(source=options.source or name_of(file))
        held: Example | None = None
        for line in lines(file, options.limits):
            found = line if isinstance(line, Rejected) else _outcome(file, line, named)
            if isinstance(found, Rejected):
                yield found
            elif held and held.query == found.query:
                held = _joined(held, found)
            else:
                yield from [held] if held else []
                held = found
        yield from [held] if held else []


def _outcome(file: Path, line: Line, options: Options) -> Outcome:
    try:
        return check_example(_example(line, options))
    except RecordError as error:
        return Rejected(str(file), line.number, str(error))


def _example(line: Line, options: Options) -> Example:
    fields = line.text.split("\t")
    if len(fields) != FIELDS:
        raise RecordError(f"number of fields is wrong: {len(fields)}, not {FIELDS}")
    if fields[5] != "0":
        raise RecordError(
            f"label is not 0: {fields[5]!r}; 0 says that the first passage is the positive one"
        )
    query, *texts = fields[:5]
    positive, negative = (
        passage({"title": "" if title in _NO_TITLE else title, "text": text}, "text")
        for title, text in (texts[:2], texts[2:])
    )
    return Example(
        id=f"{options.source}:{line.number}",
        query=query,
        positives=(positive,),
        negatives=(negative,),
        instruction=options.instruction,
        language=options.language,
        source=options.source,
    )


def _joined(first: Example, second: Example) -> Example:
    positives, negatives = (
        tuple(dict.fromkeys(texts))
        for texts in (first.positives + second.positives, first.negatives + second.negatives)
    )
    return first._replace(positives=positives, negatives=negatives)
