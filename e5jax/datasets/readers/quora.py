"""Quora's duplicate questions: a TSV with quoted fields and the columns qid1, qid2, question1, question2 and is_duplicate.

A pair of duplicates is an example, the first question its query. Questions that were judged to be no duplicates of the query are
its negatives; such pairs are in memory while the file is read.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

from e5jax.data.records import Example, check_example
from e5jax.data.tables import Record, header, records
from e5jax.datasets.readers.lines import files, name_of
from e5jax.datasets.readers.result import Limits, Options, Outcome, Rejected
from e5jax.errors import RecordError

COLUMNS = ("qid1", "qid2", "question1", "question2", "is_duplicate")


def read(path: Path, options: Options) -> Iterator[Outcome]:
    """A file or a folder of `*.tsv`."""
    for file in files(path, ".tsv"):
        named = options._replace(source=options.source or name_of(file))
        others: dict[str, list[str]] = defaultdict(list)
        for row in _rows(file, options.limits):
            if not isinstance(row, Rejected) and row.fields[4] == "0":
                first, second, one, other, _ = row.fields
                others[first].append(other)
                others[second].append(one)
        for row in _rows(file, options.limits):
            if isinstance(row, Rejected):
                yield row
            elif row.fields[4] != "0":
                yield _outcome(file, row, others, named)


def _rows(file: Path, limits: Limits) -> Iterator[Record | Rejected]:
    """The fields of COLUMNS."""
    found = records(file, limits, "\t", quoted=True)
    before, names = header(found)
    yield from before
    if missing := [name for name in COLUMNS if name not in names]:
        yield Rejected(
            str(file),
            1 + len(before),
            f"columns: there is no {', '.join(missing)} among {', '.join(names) or 'none'}",
        )
        return
    places = [names.index(name) for name in COLUMNS]
    for row in found:
        yield (
            row
            if isinstance(row, Rejected)
            else Record(row.number, [row.fields[place] for place in places])
        )


def _outcome(file: Path, row: Record, others: dict[str, list[str]], options: Options) -> Outcome:
    first, _, query, positive, duplicate = row.fields
    try:
        if duplicate != "1":
            raise RecordError(f"is_duplicate: must be 0 or 1: not {duplicate!r}")
        return check_example(
            _example(
                f"{options.source}:{row.number}", query, positive, others.get(first, ()), options
            )
        )
    except RecordError as error:
        return Rejected(str(file), row.number, str(error))


def _example(
    identity: str, query: str, positive: str, negatives: Sequence[str], options: Options
) -> Example:
    return Example(
        id=identity,
        query=query,
        positives=(positive,),
        negatives=tuple(text for text in dict.fromkeys(negatives) if text.strip()),
        instruction=options.instruction,
        language=options.language,
        source=options.source,
    )
