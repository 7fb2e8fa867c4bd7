"""Hugging Face safetensors folders: read straight into sharded arrays, and written back, through a family's name table."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

import jax
import ml_dtypes
import numpy as np
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled, RepositoryNotFoundError
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from e5jax.errors import ConfigError
from e5jax.model.families import FAMILIES
from e5jax.model.slices import Source, Tensor, placed, plain, quantising
from e5jax.model.spec import Spec
from e5jax.validate import is_hub_id

FLOATS = {"F32": np.dtype(np.float32), "BF16": np.dtype(ml_dtypes.bfloat16), "F16": np.dtype(np.float16)}
SHARD_BYTES = 5_000_000_000
HEADER_BYTES = 8_000_000  # more than a hundred thousand tensors have; the library itself takes 100 MB
SCALE = "/kernel_scale"  # no tensor of its own
WANTED = ["*.json", "*.safetensors", "1_Pooling/*", "2_Normalize/*"]


def locate(name: str) -> Path:
    """A folder as it is, a hub id downloaded (weights as safetensors only). Raises ConfigError when there is neither."""
    if Path(name).is_dir():
        return Path(name)
    if not is_hub_id(name):
        raise ConfigError(f"{name!r}: there is no such folder; give a Hugging Face folder or a hub id like org/name")
    try:
        return Path(snapshot_download(name, allow_patterns=WANTED))
    except (HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled, RepositoryNotFoundError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"{name!r}: no such folder here, and not to be had from the hub ({reason})") from error


def headers(folder: Path) -> dict[str, Tensor]:
    """All tensors of a folder (single file or index) by their name without the `model.` prefix of causal models."""
    found: dict[str, Tensor] = {}
    for file in files(folder):
        for tensor in _header(file):
            name = tensor.name.removeprefix("model.")
            if name in found:
                raise ConfigError(f"{file}: has {tensor.name}, and so has {found[name].file.name}; one of them is of another model")
            found[name] = tensor
    return found


def _header(file: Path) -> list[Tensor]:
    """The tensors of a file. Nothing is set aside for them: their bytes are mapped, and have to be there."""
    with file.open("rb") as opened:
        size = int.from_bytes(opened.read(8), "little")
    if size > HEADER_BYTES:
        raise ConfigError(f"{file}: not a safetensors file (a header of {size:,} bytes; at most {HEADER_BYTES:,} are read)")
    try:
        with safe_open(file, framework="np") as opened:
            views = {name: opened.get_slice(name) for name in opened.offset_keys()}
            return [Tensor(file, name, tuple(view.get_shape()), view.get_dtype()) for name, view in views.items()]
    except SafetensorError as error:
        raise ConfigError(f"{file}: not a safetensors file ({error})") from error


def files(folder: Path) -> list[Path]:
    """The safetensors files of a folder; raises ConfigError when some are not there."""
    index, single = folder / "model.safetensors.index.json", folder / "model.safetensors"
    if index.is_file():
        try:
            names = sorted({str(name) for name in json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()})
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ConfigError(f"{index}: not an index of safetensors files ({error!r})") from error
        there = {path.name for path in folder.iterdir() if path.is_file()}
        if missing := [name for name in names if name not in there]:
            raise ConfigError(f"{index} names files that are not there: {', '.join(missing)}")
        return [folder / name for name in names]
    if not single.is_file():
        raise ConfigError(f"{folder}: neither model.safetensors nor model.safetensors.index.json is there")
    return [single]


def check(folder: Path, spec: Spec, wanted: Mapping[str, jax.ShapeDtypeStruct]) -> dict[str, Tensor]:
    """Compares the folder's headers with the model; raises one ConfigError that names every tensor that is wrong."""
    found = headers(folder)
    family = FAMILIES[spec.family]
    expected: dict[str, tuple[int, ...]] = {}
    for path, leaf in wanted.items():
        expected |= {} if path.endswith(SCALE) else {name: stored_shape(path, leaf.shape) for name in names_of(spec, path)}
    extra = {name for name in set(found) - set(expected) if not name.endswith(family.IGNORED)}
    problems = [f"missing {name}" for name in sorted(set(expected) - set(found))]
    problems += [f"unexpected {name}" for name in sorted(extra)]
    for name in sorted(set(expected) & set(found)):
        if found[name].shape != expected[name]:
            problems.append(f"{name} has shape {list(found[name].shape)}, the config needs {list(expected[name])}")
        elif found[name].dtype not in FLOATS:
            problems.append(f"{name} is {found[name].dtype}, supported are {', '.join(FLOATS)}")
    if problems:
        raise ConfigError(f"{folder}: weights do not fit config.json: {'; '.join(problems)}")
    return found


def names_of(spec: Spec, path: str) -> list[str]:
    """The tensors that one of our variables is made of, one per layer for stacked ones."""
    template = FAMILIES[spec.family].NAMES[path]
    return [template.format(layer) for layer in range(spec.layers)] if path.startswith("layers/") else [template]


def stored_shape(path: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of each Hugging Face tensor of a variable of this shape."""
    shape = shape[1:] if path.startswith("layers/") else shape
    return shape[::-1] if path.endswith("/kernel") else shape


def load(folder: Path, spec: Spec, wanted: Mapping[str, jax.ShapeDtypeStruct]) -> dict[str, jax.Array]:
    """Reads every variable into its sharding and dtype; integer kernels are quantised on the way.

    Besides the arrays the host holds little more than the slice of one device; kernels that become integers are read twice,
    first for their scales. Raises ConfigError naming all tensors that are missing, extra, wrongly shaped or not finite.
    """
    found = check(folder, spec, wanted)
    broken: set[str] = set()
    arrays = {}
    for path, leaf in wanted.items():
        if path.endswith(SCALE):
            continue  # made with its kernel
        sources = [Source(found[name], path.endswith("/kernel"), broken) for name in names_of(spec, path)]
        scale = wanted.get(f"{path}_scale")
        if scale is None:
            fill = plain(sources, stacked=path.startswith("layers/"))
        else:
            arrays[f"{path}_scale"], fill = quantising(sources, leaf, scale)
        arrays[path] = placed(leaf, fill)
    if broken:
        raise ConfigError(f"{folder}: NaN or infinity in {', '.join(sorted(broken))}; the file is damaged")
    return arrays


def save(folder: Path, tensors: Iterable[tuple[str, tuple[int, ...], Callable[[], np.ndarray]]], dtype: str) -> None:
    """Writes tensors, given as (name, shape, how to get it): files of at most `SHARD_BYTES`, an index when there are several."""
    width = np.dtype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)
    shards = list(_shards(tensors, width.itemsize))
    where = {}
    for number, shard in enumerate(shards, 1):
        file = "model.safetensors" if len(shards) == 1 else f"model-{number:05}-of-{len(shards):05}.safetensors"
        # ascontiguousarray: the writer stores memory as it lies, also that of a transposed view.
        save_file(
            {name: np.ascontiguousarray(get().astype(width)) for name, get in shard}, folder / file, metadata={"format": "pt"}
        )
        where |= {name: file for name, _ in shard}
    if len(shards) > 1:
        index = {"metadata": {}, "weight_map": where}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2), encoding="utf-8")


def _shards(
    tensors: Iterable[tuple[str, tuple[int, ...], Callable[[], np.ndarray]]], itemsize: int
) -> Iterator[list[tuple[str, Callable[[], np.ndarray]]]]:
    shard: list[tuple[str, Callable[[], np.ndarray]]] = []
    size = 0
    for name, shape, get in tensors:
        nbytes = int(np.prod(shape)) * itemsize
        if shard and size + nbytes > SHARD_BYTES:
            yield shard
            shard, size = [], 0
        shard.append((name, get))
        size += nbytes
    if shard:
        yield shard


def read(tensor: Tensor) -> np.ndarray:
    """One whole tensor, as it is stored."""
    with safe_open(tensor.file, framework="np") as opened:
        return opened.get_tensor(tensor.name)


def to_stored(path: str, array: jax.Array, layer: int) -> np.ndarray:
    """One layer of a variable (or the whole of one that is not stacked) in Hugging Face's layout."""
    part = np.asarray(array[layer] if path.startswith("layers/") else array)
    return part.T if path.endswith("/kernel") else part
