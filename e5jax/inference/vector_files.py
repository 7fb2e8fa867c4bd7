"""Vectors into a file, a block at a time: npy, safetensors or Parquet."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from e5jax.config import Precision
from e5jax.errors import ConfigError

KINDS = (".npy", ".safetensors", ".parquet")
FLOATS = ("float32", "float16")
_CODES = {
    "float32": "F32",
    "float16": "F16",
    "int8": "I8",
    "uint8": "U8",
}  # as safetensors calls them


def check_output(path: Path, dtype: str, precision: Precision) -> None:
    """Raises ConfigError for what cannot be written."""
    if path.suffix not in KINDS:
        raise ConfigError(f"--output={path}: must end in {', '.join(KINDS)}")
    if dtype not in FLOATS:
        raise ConfigError(f"--dtype={dtype}: must be {' or '.join(FLOATS)}")
    if precision != "float32" and dtype != "float32":
        raise ConfigError(
            f"--dtype={dtype} and --precision={precision}: what is stored as {precision} is no float; leave one out"
        )


def write(
    path: Path,
    blocks: Iterator[np.ndarray],
    shape: tuple[int, int],
    dtype: str,
    ids: Iterable[str] | None,
) -> None:
    """Blocks of `shape` in all, in order, as `dtype`; `ids` where the input names its rows, as a column or beside the vectors."""
    width = np.dtype(dtype)
    narrowed = (np.ascontiguousarray(block.astype(width)) for block in blocks)
    if path.suffix == ".parquet":
        from e5jax.inference import parquet_vectors  # noqa: PLC0415  other formats need no Arrow

        parquet_vectors.write(path, narrowed, ids)
        return
    with path.open("wb") as file:
        if path.suffix == ".npy":
            np.lib.format.write_array_header_1_0(
                file, {"descr": width.str, "fortran_order": False, "shape": shape}
            )
        else:
            size = shape[0] * shape[1] * width.itemsize
            header = json.dumps(
                {"vectors": {"dtype": _CODES[dtype], "shape": shape, "data_offsets": [0, size]}}
            ).encode()
            header += b" " * (-len(header) % 8)  # tensors start at a multiple of 8
            file.write(len(header).to_bytes(8, "little") + header)
        for block in narrowed:
            file.write(block.data)
