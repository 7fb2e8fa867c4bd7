"""Slices of stored tensors, read block by block into the memory of the devices that hold them."""

import math
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path
from typing import NamedTuple, cast

import jax
import ml_dtypes
import numpy as np
from safetensors import SafetensorError, safe_open

from e5jax.config import Quantisation
from e5jax.errors import ConfigError
from e5jax.model import quantise

BLOCK = 2**22  # numbers read at a time, by each thread
THREADS = min(os.cpu_count() or 1, 8)
TILE = 512  # rows and columns copied at a time
HEADER_BYTES = (
    8_000_000  # more than a hundred thousand tensors have; the library itself takes 100 MB
)
ALIGNMENT = 64  # bytes

Index = tuple[slice, ...]
Fill = Callable[[np.ndarray, Index], None]  # writes one slice of a variable


class Tensor(NamedTuple):
    """Where a tensor lies, as its file's header says."""

    file: Path
    name: str
    shape: tuple[int, ...]
    dtype: str
    delta: "Delta | None" = None  # what an adapter adds to it


class Delta(NamedTuple):
    """`scale B A`, added to a stored matrix `[out, in]`."""

    a: Tensor  # [rank, in]
    b: Tensor  # [out, rank]
    scale: float

    def part(self, rows: slice, columns: slice) -> np.ndarray:
        """Some of its numbers, float32."""
        a, b = read_slice(self.a, (slice(None), columns)), read_slice(self.b, (rows, slice(None)))
        return np.float32(self.scale) * (b.astype(np.float32) @ a.astype(np.float32))


def file_headers(file: Path) -> list[Tensor]:
    """All tensors of a safetensors file, under the names that they have there. Raises ConfigError.

    Nothing is set aside for them: their bytes are mapped, and have to be there.
    """
    with file.open("rb") as raw:
        size = int.from_bytes(raw.read(8), "little")
    if size > HEADER_BYTES:
        raise ConfigError(
            f"{file}: not a safetensors file (a header of {size:,} bytes; at most {HEADER_BYTES:,} are read)"
        )
    try:
        with safe_open(file, framework="np") as opened:
            views = [(name, opened.get_slice(name)) for name in opened.offset_keys()]
            return [
                Tensor(file, name, tuple(view.get_shape()), view.get_dtype())
                for name, view in views
            ]
    except SafetensorError as error:
        raise ConfigError(f"{file}: not a safetensors file ({error})") from error


def read_slice(tensor: Tensor, index: Index) -> np.ndarray:
    """A part of a tensor: as it is stored, or float32 where an adapter adds to it."""
    # Opened for each part: the pages of a file count as memory while it is mapped.
    with safe_open(tensor.file, framework="np") as opened:
        part = opened.get_slice(tensor.name)[index]
    if tensor.delta is None:
        return part
    rows, columns = index
    return part.astype(np.float32) + tensor.delta.part(rows, columns)


class Source(NamedTuple):
    """A stored tensor as our variable has it: kernels the other way round."""

    tensor: Tensor
    turned: bool
    broken: set[str]  # where those go that are not finite

    def blocks(self, index: Index) -> Iterator[tuple[Index, np.ndarray]]:
        """(place in the slice, numbers) of a slice in blocks of at most `BLOCK` numbers, in the stored dtype."""
        shape = self.tensor.shape[::-1] if self.turned else self.tensor.shape
        begin, stop = zip(
            *(part.indices(size)[:2] for part, size in zip(index, shape, strict=True)), strict=True
        )
        # Along the first dimension that is stored, whose rows lie one behind the other.
        along = len(shape) - 1 if self.turned else 0
        size = max(BLOCK // max(math.prod(shape) // shape[along], 1), 1)
        for first in range(begin[along], stop[along], size):
            block = list(map(slice, begin, stop))
            block[along] = slice(first, min(first + size, stop[along]))
            part = read_slice(self.tensor, tuple(block[::-1] if self.turned else block))
            if not _finite(part):
                self.broken.add(self.tensor.name.removeprefix("model."))
            here = tuple(slice(x.start - y, x.stop - y) for x, y in zip(block, begin, strict=True))
            yield here, part.T if self.turned else part


def plain(sources: list[Source], *, stacked: bool) -> Fill:
    """What fills a slice of a variable with the numbers of its tensors, one a layer when it is stacked."""

    def fill(out: np.ndarray, index: Index) -> None:
        parts, inner = (
            (zip(out, sources[index[0]], strict=True), index[1:])
            if stacked
            else ([(out, sources[0])], index)
        )

        def copy(part: np.ndarray, source: Source) -> None:
            for here, block in source.blocks(inner):
                _put(part[here], block)

        with ThreadPoolExecutor(THREADS) as pool:
            for done in [pool.submit(copy, *each) for each in parts]:
                done.result()

    return fill


def _put(out: np.ndarray, numbers: np.ndarray) -> None:
    """`out[...] = numbers`, tile by tile: one of them may lie by columns, and caches lose what they fetch of it too early."""
    if (
        out.dtype == numbers.dtype
    ):  # as integers: for bfloat16 NumPy keeps all other threads waiting
        out, numbers = (each.view(f"u{each.itemsize}") for each in (out, numbers))
    if out.ndim == 1:
        out[...] = numbers
        return
    for row, column in product(range(0, out.shape[0], TILE), range(0, out.shape[1], TILE)):
        tile = slice(row, row + TILE), slice(column, column + TILE)
        out[tile] = numbers[tile]


def _finite(part: np.ndarray) -> bool:
    if part.dtype != ml_dtypes.bfloat16:
        return bool(np.isfinite(part).all())
    return bool(
        np.max(part.view(np.uint16) & 0x7FFF, initial=0) < 0x7F80
    )  # exponents of ones are what NaN and infinity have


def quantising(
    sources: list[Source], leaf: jax.ShapeDtypeStruct, scale: jax.ShapeDtypeStruct
) -> tuple[jax.Array, Fill]:
    """The scales of a stacked kernel, and what fills a slice of it with integers."""
    # Scales first, over all inputs: a device that holds some of the inputs needs those of all.
    whole = np.zeros(scale.shape, np.float32)
    kind = cast(Quantisation, str(leaf.dtype))
    for layer, source in enumerate(sources):
        for (_, outputs), block in source.blocks((slice(None), slice(None))):
            whole[layer, :, outputs] = quantise.scales(block, kind)
    inputs = leaf.shape[1] // scale.shape[1]  # that share a scale

    def fill(out: np.ndarray, index: Index) -> None:
        begin, stop, _ = index[1].indices(leaf.shape[1])
        used = whole[index[0], begin // inputs : -(-stop // inputs), index[2]]
        for part, source, own in zip(out, sources[index[0]], used, strict=True):
            for (here, outputs), block in source.blocks(index[1:]):
                with np.errstate(invalid="ignore"):  # `blocks` has noted what is not finite
                    part[here, outputs] = quantise.integers(block, own[:, outputs])

    def copy(out: np.ndarray, index: Index) -> None:
        out[...] = whole[index]

    return placed(scale, copy), fill


def placed(leaf: jax.ShapeDtypeStruct, fill: Fill) -> jax.Array:
    """An array whose slices `fill` writes, one slice at a time, each once for all devices of this process that hold it."""
    holders: dict[str, tuple[Index, list[jax.Device]]] = {}
    for device, index in leaf.sharding.addressable_devices_indices_map(leaf.shape).items():
        assert index is not None, "an array lies on all devices of its mesh"
        holders.setdefault(str(index), (index, []))[1].append(device)
    parts = []
    for index, devices in holders.values():
        buffer = _aligned(leaf.sharding.shard_shape(leaf.shape), leaf.dtype)
        fill(buffer, index)
        # Waits, so that no two buffers are in the air.
        parts += [jax.device_put(buffer, device).block_until_ready() for device in devices]
    return jax.make_array_from_single_device_arrays(leaf.shape, leaf.sharding, parts)


def _aligned(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """An empty array that a CPU device takes over without a copy."""
    size = math.prod(shape) * dtype.itemsize
    memory = np.empty(size + ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % ALIGNMENT
    return memory[start : start + size].view(dtype).reshape(shape)
