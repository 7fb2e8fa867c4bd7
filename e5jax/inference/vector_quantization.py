"""Vectors in fewer bytes: leading dimensions, integers or bits for floats. Unit vectors flow in, what is stored flows out.

The integers and bits are those of sentence-transformers' `quantize_embeddings` with the same ranges:

    int8, uint8        255 equal steps from the least to the greatest number of each dimension, which texts are asked for once
    binary, ubinary    a bit for each number, 1 where it is above zero, eight of them a byte, signed or not

`ranges.json` of a model folder holds what was asked: by dimensions, the least and the greatest of each number.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
from jaxtyping import Float, Int

from e5jax.config import Precision
from e5jax.errors import ConfigError
from e5jax.workdir.directory import write_text

FILE = "ranges.json"
STEPS = 255
DTYPES: dict[Precision, type[np.generic]] = {
    "float32": np.float32,
    "int8": np.int8,
    "uint8": np.uint8,
    "binary": np.int8,
    "ubinary": np.uint8,
}
INTEGERS: tuple[Precision, ...] = ("int8", "uint8")
BITS: tuple[Precision, ...] = ("binary", "ubinary")
_SIGN = np.uint8(0x80)  # what signed and unsigned bytes differ in

Ranges = Float[
    np.ndarray, "2 d"
]  # the least and the greatest of each number, as sentence-transformers takes them


def shortened(
    vectors: Float[np.ndarray, "n d"], dimensions: int | None
) -> Float[np.ndarray, "n d"]:
    """The leading numbers of each vector, or all, at length 1. Raises ConfigError when there are not so many."""
    if dimensions is not None and not 1 <= dimensions <= vectors.shape[1]:
        raise ConfigError(
            f"dimensions={dimensions}: vectors have {vectors.shape[1]}; give from 1 to {vectors.shape[1]}"
        )
    leading = vectors[:, :dimensions]
    return leading / np.maximum(np.linalg.norm(leading, axis=1, keepdims=True), 1e-12)


def ranges_of(vectors: Float[np.ndarray, "n d"]) -> Ranges:
    """Of some hundreds of vectors at least: what they do not reach is cut off later."""
    if len(vectors) < 2:
        raise ConfigError(
            f"{len(vectors)} vectors to calibrate on: ranges need at least 2, and some hundreds to be of use"
        )
    return np.stack([vectors.min(axis=0), vectors.max(axis=0)]).astype(np.float32)


def quantise(
    vectors: Float[np.ndarray, "n d"], precision: Precision, ranges: Ranges | None = None
) -> np.ndarray:
    """What is stored: `[n, stored_width(d)]` of `DTYPES[precision]`. Raises ConfigError when int8 or uint8 lack their ranges."""
    if precision in BITS:
        packed = np.packbits(vectors > 0, axis=-1)
        return packed if precision == "ubinary" else signed(packed, "ubinary")
    if precision in INTEGERS:
        least, step = _steps(ranges, vectors.shape[1], precision)
        levels = np.clip(np.floor((vectors - least) / step), 0, STEPS).astype(np.uint8)
        return levels if precision == "uint8" else signed(levels, "uint8")
    return vectors.astype(np.float32, copy=False)


def restored(
    stored: np.ndarray, precision: Precision, dimensions: int, ranges: Ranges | None = None
) -> Float[np.ndarray, "n d"]:
    """Numbers in place of integers and bits: the middle of each step, -1 or 1 for each bit. Of any length, not 1."""
    if precision in BITS:
        bits = np.unpackbits(unsigned(stored, precision), axis=-1, count=dimensions)
        return bits.astype(np.float32) * 2 - 1
    if precision in INTEGERS:
        least, step = _steps(ranges, dimensions, precision)
        assert ranges is not None, "looked at by `_steps`"
        return np.clip(
            least + (unsigned(stored, precision) + np.float32(0.5)) * step, *ranges
        ).astype(np.float32)
    return stored.astype(np.float32, copy=False)


def unsigned(stored: Int[np.ndarray, "*n w"], precision: Precision) -> Int[np.ndarray, "*n w"]:
    """The same integers or bits as unsigned bytes."""
    return stored if DTYPES[precision] is np.uint8 else stored.view(np.uint8) ^ _SIGN


def signed(stored: Int[np.ndarray, "*n w"], precision: Precision) -> Int[np.ndarray, "*n w"]:
    """The same integers or bits as signed bytes."""
    return stored if DTYPES[precision] is np.int8 else (stored ^ _SIGN).view(np.int8)


def stored_width(dimensions: int, precision: Precision) -> int:
    """Numbers of a stored vector."""
    return -(-dimensions // 8) if precision in BITS else dimensions


def stored_bytes(dimensions: int, precision: Precision) -> int:
    """Bytes of a stored vector."""
    return stored_width(dimensions, precision) * np.dtype(DTYPES[precision]).itemsize


def step_of(ranges: Ranges) -> Float[np.ndarray, " d"]:
    """The width of one step of each number; 1 where all vectors agree."""
    width = (ranges[1] - ranges[0]) / np.float32(STEPS)
    return np.where(width > 0, width, np.float32(1))


def _steps(
    ranges: Ranges | None, dimensions: int, precision: Precision
) -> tuple[np.ndarray, np.ndarray]:
    if ranges is None:
        raise ConfigError(
            f"precision={precision!r}: no ranges are known for {dimensions} dimensions; ask some texts of your corpus for them "
            f"once: e5jax calibrate --model=DIR --input=FILE --dimensions={dimensions}, or Embedder.calibrate(texts)"
        )
    if ranges.shape != (2, dimensions):
        raise ConfigError(
            f"ranges of shape {list(ranges.shape)}: vectors of {dimensions} dimensions need [2, {dimensions}]"
        )
    wide = ranges.astype(np.float32, copy=False)
    return wide[0], step_of(wide)


class Store(NamedTuple):
    """The vectors of a corpus as they are stored, in memory or from `np.load(mmap_mode="r")`."""

    vectors: np.ndarray  # [n, stored_width(dimensions, precision)]
    precision: Precision
    dimensions: int
    ranges: Ranges | None = None  # of int8 and uint8

    @classmethod
    def of(
        cls, vectors: Float[np.ndarray, "n d"], precision: Precision, ranges: Ranges | None = None
    ) -> Self:
        """Unit vectors, stored; without ranges int8 and uint8 take their own."""
        ranges = ranges_of(vectors) if ranges is None and precision in INTEGERS else ranges
        return cls(quantise(vectors, precision, ranges), precision, vectors.shape[1], ranges)

    def rows(self, places: Int[np.ndarray, "*n"]) -> Float[np.ndarray, "*n d"]:
        """Some of them as numbers again, those at these places."""
        return restored(self.vectors[places], self.precision, self.dimensions, self.ranges)


# --- ranges of a model folder ----------------------------------------------------------------------------------


def read_ranges(folder: Path) -> dict[int, Ranges]:
    """By dimensions; none where the folder has none. Raises ConfigError for a damaged file."""
    path = folder / FILE
    if not path.is_file():
        return {}
    try:
        return {
            int(name): _ranges(values, int(name))
            for name, values in json.loads(path.read_text(encoding="utf-8")).items()
        }
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"{path}: not ranges by dimensions ({error}); make it anew: e5jax calibrate"
        ) from error


def save_ranges(folder: Path, found: Mapping[int, Ranges], texts: int) -> Path:
    """Adds ranges that so many texts have given to those of the folder."""
    held: dict[str, Any] = {}
    if (path := folder / FILE).is_file():
        read_ranges(folder)
        held = json.loads(path.read_text(encoding="utf-8"))
    for dimensions, ranges in found.items():
        held[str(dimensions)] = {
            "texts": texts,
            "least": ranges[0].tolist(),
            "greatest": ranges[1].tolist(),
        }
    write_text(path, json.dumps(held) + "\n")
    return path


def _ranges(values: Mapping[str, Any], dimensions: int) -> Ranges:
    ranges = np.array([values["least"], values["greatest"]], np.float32)
    if (
        ranges.shape != (2, dimensions)
        or not np.isfinite(ranges).all()
        or (ranges[0] > ranges[1]).any()
    ):
        raise ValueError(
            f"{dimensions}: needs as many finite numbers, twice, the least not above the greatest"
        )
    return ranges
