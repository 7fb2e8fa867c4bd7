"""Parts of a model that fit into memory: some of the layers as a folder of their own, which any library loads.

A model of few layers is its only part, the folder itself. The parts of a larger one are its layers in turn, each between the
embedding and the last norm, so that together they are every number of it.
"""

import json
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import NamedTuple

from e5jax.export.trained_model import TrainedModel
from e5jax.jsonl import read_object
from e5jax.model import hf_weights
from e5jax.model.adapter import FILE
from e5jax.model.families import FAMILIES
from e5jax.model.folder import ADAPTER, file_of
from e5jax.model.spec import Spec
from e5jax.model.weight_io import Tensor, file_headers

BYTES = 4_000_000_000  # of a part in float32, its embedding included
_LAYER = re.compile(r"\blayers\.(\d+)\.")


class Part(NamedTuple):
    """Layers from `first` on, as many as `spec` has: the export's folder, and the base's where there is one."""

    first: int
    spec: Spec
    folder: Path
    base: Path | None


def parts(subject: TrainedModel, folder: Path, most: int) -> Iterator[Part]:
    """Every part of an exported folder, of at most `most` bytes. Those that are copies lie beside it, one at a time."""
    spec = subject.made.spec
    each = max(1, (most // 4 - spec.vocab * spec.hidden) // (spec.matrix_parameters // spec.layers))
    for first in range(0, spec.layers, each):
        small = spec._replace(layers=min(each, spec.layers - first))
        if small == spec and not (folder / ADAPTER).is_file():
            yield Part(first, small, folder, subject.base)
            continue
        with tempfile.TemporaryDirectory(dir=folder.parent) as space:
            yield _copied(
                subject, folder, Path(space), Part(first, small, Path(space, "part"), subject.base)
            )


def _copied(subject: TrainedModel, folder: Path, space: Path, part: Part) -> Part:
    if part.base is not None and part.spec != subject.made.spec:
        part = part._replace(base=_model(part.base, part, space / "base"))
    shutil.copytree(folder, part.folder, ignore=shutil.ignore_patterns("*.safetensors*"))
    if not (folder / ADAPTER).is_file():
        return part._replace(folder=_model(folder, part, part.folder))
    assert part.base is not None, "an adapter has a base"
    config = read_object(folder / ADAPTER) | {"base_model_name_or_path": str(part.base.absolute())}
    (part.folder / ADAPTER).write_text(json.dumps(config), encoding="utf-8")
    factors = {tensor.name: tensor for tensor in file_headers(folder / FILE)}
    _write(part.folder / FILE, some_layers(factors, part))
    return part


def _model(source: Path, part: Part, to: Path) -> Path:
    """Some layers of a whole model, and a config of as many."""
    to.mkdir(exist_ok=True)
    ignored = FAMILIES[part.spec.family].IGNORED
    found = {
        name: tensor
        for name, tensor in hf_weights.headers(source).items()
        if not name.endswith(ignored)
    }
    _write(to / "model.safetensors", some_layers(found, part))
    config = read_object(file_of(source, "config.json")) | {"num_hidden_layers": part.spec.layers}
    (to / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return to


def _write(file: Path, tensors: Mapping[str, Tensor]) -> None:
    narrow = {tensor.dtype for tensor in tensors.values()} == {"BF16"}
    hf_weights.write(
        file,
        [
            (name, tensor.shape, partial(hf_weights.read, tensor))
            for name, tensor in tensors.items()
        ],
        "bfloat16" if narrow else "float32",
    )


def some_layers(found: Mapping[str, Tensor], part: Part) -> dict[str, Tensor]:
    """The tensors of the part's layers, which become 0, 1, …, and those of no layer."""
    chosen = {}
    for name, tensor in found.items():
        layer = _LAYER.search(name)
        number = int(layer[1]) - part.first if layer else 0
        if 0 <= number < part.spec.layers:
            chosen[_LAYER.sub(f"layers.{number}.", name)] = tensor
    return chosen
