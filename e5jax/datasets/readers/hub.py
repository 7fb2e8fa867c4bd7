"""Data sets of the Hugging Face hub, or in a local folder of the `datasets` library; columns are found by name (see `rows`)."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from e5jax.data.records import check_example
from e5jax.datasets.readers.result import Options, Outcome, Rejected
from e5jax.datasets.readers.rows import columns, row_example
from e5jax.errors import ConfigError, RecordError

SAVED = ("state.json", "dataset_dict.json")  # what `save_to_disk` leaves


def is_saved(path: Path) -> bool:
    """Whether `save_to_disk` wrote this folder."""
    return any((path / name).is_file() for name in SAVED)


def read(path: Path, options: Options) -> Iterator[Outcome]:
    """A folder, saved or of data files, or else the hub's `owner/name`, streamed; the line of a rejection is the row, from 1."""
    source = options.source or path.name
    names, rows = _open(path, options.split)
    try:
        parts = columns(names, options)
    except RecordError as error:
        yield Rejected(str(path), 1, str(error))
        return
    named = options._replace(source=source)
    for number, row in enumerate(rows, 1):
        try:
            yield check_example(row_example(row, parts, named, f"{source}:{number}"))
        except RecordError as error:
            yield Rejected(str(path), number, str(error))


def _open(path: Path, split: str) -> tuple[list[str], Iterable[Any]]:
    import datasets  # noqa: PLC0415  takes seconds, and only this format needs it

    try:
        if not is_saved(path):
            found = datasets.load_dataset(str(path), split=split, streaming=True)
        else:
            found = datasets.load_from_disk(str(path))
            found = found[split] if isinstance(found, datasets.DatasetDict) else found
    except (OSError, ValueError, KeyError) as error:  # its own errors are of these kinds
        raise ConfigError(f"{path}: datasets cannot open split {split!r}: {error}") from error
    names = found.column_names or list(next(iter(found.take(1)), {}))
    return names, found
