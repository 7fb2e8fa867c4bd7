"""Parquet files: row groups are read one after the other, columns are found by name (see `rows`)."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet as pq

from e5jax.data.records import check_example
from e5jax.datasets.readers.lines import files, name_of
from e5jax.datasets.readers.result import Limits, Options, Outcome, Rejected
from e5jax.datasets.readers.rows import columns, row_example
from e5jax.errors import ConfigError, RecordError

ROWS = 256  # a batch


def read(path: Path, options: Options) -> Iterator[Outcome]:
    """A file or a folder of `*.parquet`; the line of a rejection is the row, from 1."""
    for file in files(path, ".parquet"):
        number = 0
        try:
            with pq.ParquetFile(file) as opened:
                _check_size(file, opened.metadata, options.limits)
                for outcome in _rows(
                    file, opened, options._replace(source=options.source or name_of(file))
                ):
                    yield outcome
                    number += 1
        except (pyarrow.ArrowException, OSError) as error:  # Arrow reports damaged pages as OSError
            yield Rejected(
                str(file),
                number + 1,
                f"Parquet data is damaged: {_first_line(error)}; nothing after this was read",
            )


def _check_size(file: Path, metadata: pq.FileMetaData, limits: Limits) -> None:
    total = sum(metadata.row_group(i).total_byte_size for i in range(metadata.num_row_groups))
    if total > limits.total_bytes:
        raise ConfigError(
            f"{file}: more than {limits.total_bytes:,} bytes when decompressed; raise total_bytes to read it"
        )
    if total > 1 << 20 and total > limits.ratio * file.stat().st_size:
        raise ConfigError(
            f"{file}: {total:,} bytes from {file.stat().st_size:,} compressed ones, more than ratio={limits.ratio:g}; "
            "if it is no bomb, raise ratio"
        )


def _rows(file: Path, opened: pq.ParquetFile, options: Options) -> Iterator[Outcome]:
    try:
        parts = columns(opened.schema_arrow.names, options)
    except RecordError as error:
        yield Rejected(str(file), 1, str(error))
        return
    wanted = sorted({name for names in parts.values() for name in names})
    number = 0
    for batch in _batches(opened, wanted):
        for place in range(batch.num_rows):
            number += 1
            try:
                row = {name: _value(batch.column(name)[place], name) for name in wanted}
                yield check_example(row_example(row, parts, options, f"{options.source}:{number}"))
            except RecordError as error:
                yield Rejected(str(file), number, str(error))


def _batches(opened: pq.ParquetFile, wanted: list[str]) -> Iterator[pyarrow.RecordBatch]:
    """None goes over the end of a row group: damage in one must not take rows of the one before it."""
    for group in range(opened.num_row_groups):
        yield from opened.iter_batches(ROWS, row_groups=[group], columns=wanted)


def _value(scalar: pyarrow.Scalar, name: str) -> Any:
    try:
        return scalar.as_py()
    except UnicodeDecodeError as error:
        raise RecordError(f"not UTF-8: {name}: {error.reason} at byte {error.start}") from error


def _first_line(error: BaseException) -> str:
    return str(error).partition("\n")[0]
