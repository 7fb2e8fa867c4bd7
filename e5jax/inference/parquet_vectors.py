"""Parquet in and out, some rows at a time."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet as pq

from e5jax.errors import ConfigError

ROWS = 1_024


def records(path: Path, names: Sequence[str], needed: str) -> Iterator[dict[str, Any]]:
    """Each row, of the columns that the file has. Raises ConfigError where the file is damaged or lacks the needed column."""
    count = 0
    try:
        with pq.ParquetFile(path) as opened:
            have = opened.schema_arrow.names
            if needed not in have:
                raise ConfigError(
                    f"{path}: no column `{needed}` among {', '.join(have)}; --field names the one to encode"
                )
            for batch in opened.iter_batches(
                ROWS, columns=[name for name in dict.fromkeys(names) if name in have]
            ):
                for row in range(batch.num_rows):
                    count += 1
                    yield {
                        name: column[row].as_py()
                        for name, column in zip(batch.schema.names, batch.columns, strict=True)
                    }
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{path}:{count}: not UTF-8: {error.reason} at byte {error.start}"
        ) from error
    except (pyarrow.ArrowException, OSError) as error:  # Arrow reports damaged pages as OSError
        raise ConfigError(
            f"{path}: Parquet data is damaged: {str(error).splitlines()[0]}"
        ) from error


def write(path: Path, blocks: Iterable[np.ndarray], ids: Iterable[str] | None) -> None:
    """A column `vector` of lists of fixed size, and `id` where there are any; a row group for each block."""
    names, writer = iter(ids or ()), None
    try:
        for block in blocks:
            flat = pyarrow.array(np.ascontiguousarray(block).reshape(-1))
            columns = {"vector": pyarrow.FixedSizeListArray.from_arrays(flat, block.shape[1])}
            if ids is not None:
                columns = {
                    "id": pyarrow.array(list(islice(names, len(block))), pyarrow.string())
                } | columns
            table = pyarrow.table(columns)
            writer = writer or pq.ParquetWriter(path, table.schema, compression="none")
            writer.write_table(table)
    finally:
        if writer is not None:
            writer.close()
