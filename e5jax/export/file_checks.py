"""The files of an exported folder, read back: each says what it must, and every tensor has the checkpoint's numbers."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from e5jax.errors import RunError
from e5jax.export import weights
from e5jax.export.settings import settings, with_bos_and_eos
from e5jax.export.trained_model import Choice, TrainedModel
from e5jax.model import hf_weights
from e5jax.model.adapter import FILE
from e5jax.model.weight_io import Tensor, file_headers, read_slice


class ExportError(RunError):
    """An exported folder is not the checkpoint's model. Says what is wrong with it."""


def check_files(folder: Path, subject: TrainedModel, choice: Choice) -> None:
    """Every file but weights says what it must, and there is no other."""
    wanted = settings(subject, choice)
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    others = {*wanted, "tokenizer.json", "README.md"}
    strange = {
        name
        for name in found - others
        if not name.endswith((".safetensors", ".safetensors.index.json"))
    }
    if strange:
        raise ExportError(f"{min(strange)}: does not belong there")
    if lost := others - found:
        raise ExportError(f"{min(lost)}: is missing")
    for name, content in wanted.items():
        if json.loads((folder / name).read_text(encoding="utf-8")) != content:
            raise ExportError(f"{name}: does not say what it must")
    if (folder / "tokenizer.json").read_text(encoding="utf-8") != with_bos_and_eos(
        subject.tokenizer
    ).to_str(pretty=True):
        raise ExportError("tokenizer.json: is not the tokenizer that the model was trained with")


def check_tensors(folder: Path, subject: TrainedModel, choice: Choice) -> int:
    """Every tensor is there once, of the right name, shape and dtype, and has the right numbers. Returns how many."""
    whole = choice.format == "merged"
    files = hf_weights.model_files(folder) if whole else [folder / FILE]
    if extra := {path.name for path in folder.glob("*.safetensors")} - {
        path.name for path in files
    }:
        raise ExportError(f"{min(extra)}: does not belong there")
    found: dict[str, Tensor] = {}
    for file in files:
        for tensor in file_headers(file):
            if tensor.name in found:
                raise ExportError(
                    f"{file.name}: {tensor.name} is in {found[tensor.name].file.name} too"
                )
            found[tensor.name] = tensor
    _check_index(folder, found)
    width = hf_weights.width_of(subject.run.export.dtype)
    wanted = list(weights.merged(subject) if whole else weights.adapter(subject))
    if odd := {name for name, _, _ in wanted} ^ set(found):
        raise ExportError(
            f"{min(odd)}: {'does not belong there' if min(odd) in found else 'is missing'}"
        )
    for name, shape, get in wanted:
        tensor = found[name]
        if (tensor.shape, hf_weights.FLOATS.get(tensor.dtype)) != (tuple(shape), width):
            raise ExportError(
                f"{name}: is {tensor.dtype} {list(tensor.shape)}, and must be {width} {list(shape)}"
            )
        _check_numbers(tensor, get(), width)
    if whole and subject.base:
        _check_merged(found, subject, width)
    return len(found)


def _check_index(folder: Path, found: Mapping[str, Tensor]) -> None:
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        where = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        if wrong := {
            name
            for name in where.keys() | found.keys()
            if name not in found or where.get(name) != found[name].file.name
        }:
            raise ExportError(f"{index.name}: is wrong about {min(wrong)}")


def _check_numbers(tensor: Tensor, wanted: np.ndarray, width: np.dtype) -> None:
    for rows in _blocks(tensor):
        part = read_slice(tensor, (rows, *(slice(0, size) for size in tensor.shape[1:])))
        if not np.isfinite(part).all():
            raise ExportError(f"{tensor.name}: has NaN or infinity")
        if not np.array_equal(part, wanted[rows].astype(width)):
            raise ExportError(f"{tensor.name}: has other numbers than the checkpoint")


def _check_merged(found: Mapping[str, Tensor], subject: TrainedModel, width: np.dtype) -> None:
    """No kernel that adapters change is the base's own."""
    assert subject.base is not None
    base = hf_weights.headers(subject.base)
    for name in sorted(weights.adapted(subject)):
        if all(
            np.array_equal(_part(found[name], rows), _part(base[name], rows).astype(width))
            for rows in _blocks(found[name])
        ):
            raise ExportError(
                f"{name}: is the base's own, as if its adapter had not been merged (or is too small for {width})"
            )


def _blocks(tensor: Tensor) -> Iterator[slice]:
    step = hf_weights.rows_a_block(tensor.shape)
    return (slice(row, min(row + step, tensor.shape[0])) for row in range(0, tensor.shape[0], step))


def _part(tensor: Tensor, rows: slice) -> np.ndarray:
    return read_slice(tensor, (rows, slice(0, tensor.shape[1])))
