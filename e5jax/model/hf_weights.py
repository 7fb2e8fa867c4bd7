"""Hugging Face safetensors folders: read straight into sharded arrays, and written back, through a family's name table."""

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import jax
import ml_dtypes
import numpy as np

from e5jax.errors import ConfigError
from e5jax.model.adapter import FILE, read_adapter
from e5jax.model.families import FAMILIES, read_spec
from e5jax.model.folder import INDEX, SINGLE, base_of, shards
from e5jax.model.spec import Spec, among_all
from e5jax.model.weight_io import (
    BLOCK,
    Source,
    Tensor,
    file_headers,
    placed,
    plain,
    quantising,
    read_slice,
)

FLOATS = {
    "F32": np.dtype(np.float32),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "F16": np.dtype(np.float16),
}
SHARD_BYTES = 5_000_000_000
HEADER_ALIGNMENT = 8
SCALE = "/kernel_scale"  # no tensor of its own


class Numbers(Protocol):
    """An array that may lie on a disk until `numpy.asarray` makes one of NumPy's of it, or of a part."""

    def __getitem__(self, index: Any, /) -> Any: ...

    def __array__(self) -> Any: ...


Stored = tuple[
    str, tuple[int, ...], Callable[[], np.ndarray]
]  # name, shape, how to get the numbers


def headers(folder: Path) -> dict[str, Tensor]:
    """All tensors of a folder (single file or index) by their name without the `model.` prefix of causal models.

    Of an adapter folder: those of its base, each with what the adapter adds to it.
    """
    adapter = read_adapter(folder)
    found: dict[str, Tensor] = {}
    for file in model_files(adapter.base if adapter else folder):
        for tensor in file_headers(file):
            name = tensor.name.removeprefix("model.")
            if name in found:
                raise ConfigError(
                    f"{file}: has {tensor.name}, and so has {found[name].file.name}; one of them is of another model"
                )
            found[name] = tensor
    return adapter.on(found) if adapter else found


def files(folder: Path) -> list[Path]:
    """The safetensors files of a folder's model, those of a base included; raises ConfigError when some are not there."""
    base = base_of(folder)
    return model_files(folder) if base is None else [folder / FILE, *model_files(base)]


def model_files(folder: Path) -> list[Path]:
    """The files of a whole model."""
    index, single = folder / INDEX, folder / SINGLE
    if index.is_file():
        names = shards(index)
        there = {path.name for path in folder.iterdir() if path.is_file()}
        if missing := [name for name in names if name not in there]:
            raise ConfigError(f"{index} names files that are not there: {', '.join(missing)}")
        return [folder / name for name in names]
    if not single.is_file():
        raise ConfigError(
            f"{folder}: neither model.safetensors nor model.safetensors.index.json is there"
        )
    return [single]


def check(
    folder: Path, spec: Spec, wanted: Mapping[str, jax.ShapeDtypeStruct]
) -> dict[str, Tensor]:
    """Compares the folder's headers with the model; raises one ConfigError that names every tensor that is wrong."""
    found = headers(folder)
    family = FAMILIES[spec.family]
    expected: dict[str, tuple[int, ...]] = {}
    for path, leaf in wanted.items():
        expected |= (
            {}
            if path.endswith(SCALE)
            else {name: stored_shape(path, leaf.shape) for name in names_of(spec, path)}
        )
    extra = {name for name in set(found) - set(expected) if not name.endswith(family.IGNORED)}
    problems = [f"missing {name}" for name in sorted(set(expected) - set(found))]
    problems += [f"unexpected {name}" for name in sorted(extra)]
    for name in sorted(set(expected) & set(found)):
        if found[name].shape != expected[name]:
            problems.append(
                f"{name} has shape {list(found[name].shape)}, the config needs {list(expected[name])}"
            )
        elif found[name].dtype not in FLOATS:
            problems.append(f"{name} is {found[name].dtype}, supported are {', '.join(FLOATS)}")
    if problems:
        raise ConfigError(f"{folder}: weights do not fit config.json: {'; '.join(problems)}")
    return found


def names_of(spec: Spec, path: str) -> list[str]:
    """The tensors that one of our variables is made of, one per layer for stacked ones."""
    template, stack = FAMILIES[spec.family].NAMES[among_all(path)], spec.stack(path)
    return [template] if stack is None else [template.format(layer) for layer in stack]


def is_stacked(path: str) -> bool:
    """Whether a variable holds a tensor for each of some layers."""
    return path.startswith(("layers/", "top/"))


def stored_shape(path: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of each Hugging Face tensor of a variable of this shape."""
    shape = shape[1:] if is_stacked(path) else shape
    return shape[::-1] if path.endswith("/kernel") else shape


def load(
    folder: Path, spec: Spec, wanted: Mapping[str, jax.ShapeDtypeStruct]
) -> dict[str, jax.Array]:
    """Reads every variable into its sharding and dtype; integer kernels are quantised on the way.

    Besides the arrays the host holds little more than the slice of one device; kernels that become integers are read twice,
    first for their scales. Biases that the shape has and the folder has not are zero. Raises ConfigError naming all tensors that
    are missing, extra, wrongly shaped or not finite.
    """
    new = (
        {path for path in wanted if path.endswith("/bias")}
        if spec.bias and not read_spec(folder).bias
        else set()
    )
    found = check(folder, spec, {path: leaf for path, leaf in wanted.items() if path not in new})
    broken: set[str] = set()
    arrays = {path: placed(wanted[path], lambda out, _: out.fill(0)) for path in new}
    for path, leaf in wanted.items():
        if path.endswith(SCALE) or path in new:
            continue  # made with its kernel, or made already
        sources = [
            Source(found[name], path.endswith("/kernel"), broken) for name in names_of(spec, path)
        ]
        scale = wanted.get(f"{path}_scale")
        if scale is None:
            fill = plain(sources, stacked=is_stacked(path))
        else:
            arrays[f"{path}_scale"], fill = quantising(sources, leaf, scale)
        arrays[path] = placed(leaf, fill)
    if broken:
        raise ConfigError(
            f"{folder}: NaN or infinity in {', '.join(sorted(broken))}; the file is damaged"
        )
    return arrays


def save(
    folder: Path, tensors: Iterable[Stored], dtype: str, shard_bytes: int | None = None
) -> None:
    """Writes tensors: files of at most `shard_bytes` (by default `SHARD_BYTES`), an index when there are several.

    One tensor after the other goes to the disk; memory holds one, and what making it takes.
    """
    shards = list(_shards(tensors, width_of(dtype).itemsize, shard_bytes or SHARD_BYTES))
    where, size = {}, 0
    for number, shard in enumerate(shards, 1):
        file = (
            "model.safetensors"
            if len(shards) == 1
            else f"model-{number:05}-of-{len(shards):05}.safetensors"
        )
        size += write(folder / file, shard, dtype)
        where |= {name: file for name, _, _ in shard}
    if len(shards) > 1:
        index = {"metadata": {"total_size": size}, "weight_map": where}
        (folder / "model.safetensors.index.json").write_text(
            json.dumps(index, indent=2), encoding="utf-8"
        )


def write(file: Path, tensors: Sequence[Stored], dtype: str) -> int:
    """One safetensors file, tensor by tensor. Returns the bytes of all numbers."""
    width, code = (
        width_of(dtype),
        next(code for code, known in FLOATS.items() if known == width_of(dtype)),
    )
    header: dict[str, dict] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, shape, _ in tensors:
        begin, end = end, end + math.prod(shape) * width.itemsize
        header[name] = {"dtype": code, "shape": list(shape), "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % HEADER_ALIGNMENT)
    with file.open("wb") as out:
        out.write(len(text).to_bytes(8, "little") + text)
        for name, shape, get in tensors:
            numbers = get()
            assert numbers.shape == tuple(shape), f"{name}: {numbers.shape} is not {shape}"
            step = rows_a_block(shape)
            for row in range(0, len(numbers), step):  # no second copy of the whole for its cast
                out.write(
                    np.ascontiguousarray(numbers[row : row + step].astype(width))
                    .view(np.uint8)
                    .data
                )
    return end


def width_of(dtype: str) -> np.dtype:
    """NumPy's `float32` or `bfloat16`."""
    return np.dtype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)


def rows_a_block(shape: Sequence[int]) -> int:
    """Rows of a tensor that are worked on at a time."""
    return max(BLOCK // math.prod(shape[1:]), 1)


def _shards(tensors: Iterable[Stored], itemsize: int, most: int) -> Iterator[list[Stored]]:
    shard: list[Stored] = []
    size = 0
    for one in tensors:
        nbytes = math.prod(one[1]) * itemsize
        if shard and size + nbytes > most:
            yield shard
            shard, size = [], 0
        shard.append(one)
        size += nbytes
    if shard:
        yield shard


def read(tensor: Tensor) -> np.ndarray:
    """One whole tensor, as it is stored, or float32 with what an adapter adds to it."""
    return read_slice(tensor, tuple(slice(0, size) for size in tensor.shape))


def to_stored(path: str, array: Numbers, layer: int) -> np.ndarray:
    """One layer of a variable (or the whole of one that is not stacked) in Hugging Face's layout."""
    part = np.asarray(array[layer] if is_stacked(path) else array)
    return part.T if path.endswith("/kernel") else part
