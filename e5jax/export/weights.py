"""The tensors of an exported folder, each made when it is asked for: merged ones, or an adapter's factors in PEFT's names."""

from collections.abc import Callable, Iterator, Mapping
from functools import partial

import numpy as np

from e5jax.export.trained_model import TrainedModel
from e5jax.model import hf_weights
from e5jax.model.adapter import FACTORS, PREFIX, maps_of
from e5jax.model.dense import fold
from e5jax.model.weight_io import Tensor


def merged(subject: TrainedModel) -> Iterator[hf_weights.Stored]:
    """Every tensor of the merged model: the base's own, the trained one, or both folded together in float32."""
    made, parameters = subject.made, subject.parameters
    found = hf_weights.headers(subject.base) if subject.base else {}
    for name, leaf in made.leaves.items():
        if leaf.is_adapter:
            continue
        lora = made.lora.get(name.split("/")[-2]) if name.endswith("/kernel") else None
        for layer, stored in enumerate(hf_weights.names_of(made.spec, name)):
            get: Callable[[], np.ndarray]
            if name == "embedding" and made.spec.added:
                get = partial(_longer, subject, found.get(stored))
            elif name in parameters:
                get = partial(hf_weights.to_stored, name, parameters[name], layer)
            elif stored not in found and name.endswith("/bias"):
                get = partial(
                    np.zeros, leaf.shape[1:], np.float32
                )  # the base has none, and it was not selected
            elif lora is None:
                get = partial(hf_weights.read, found[stored])
            else:
                get = partial(_folded, found[stored], parameters, name, layer, lora.scale)
            yield stored, stored_shape(subject, name), get


def stored_shape(subject: TrainedModel, name: str) -> tuple[int, ...]:
    """Of a tensor in the folder: the embedding has the rows of new tokens at its end."""
    shape, added = (
        hf_weights.stored_shape(name, subject.made.leaves[name].shape),
        subject.made.spec.added,
    )
    return (shape[0] + added, *shape[1:]) if name == "embedding" else shape


def _longer(subject: TrainedModel, own: Tensor | None) -> np.ndarray:
    """The embedding with the rows of new tokens."""
    known = subject.parameters.get("embedding")
    if known is None:
        assert own is not None, "what is not trained is in the base"
        known = hf_weights.read(own)
    return np.concatenate(
        [np.asarray(known).astype(np.float32), np.asarray(subject.parameters["added"])]
    )


def adapter(subject: TrainedModel) -> Iterator[hf_weights.Stored]:
    """Every factor, `A` as `[rank, in]` and `B` as `[out, rank]`."""
    for name, leaf in subject.made.leaves.items():
        if leaf.is_adapter:
            factor, shape = FACTORS[name.rpartition("/")[2]], leaf.shape[:0:-1]
            for layer, changed in enumerate(maps_of(subject.made.spec, name)):
                yield (
                    f"{PREFIX}{changed}.{factor}.weight",
                    shape,
                    partial(_factor, subject.parameters[name], layer),
                )


def adapted(subject: TrainedModel) -> set[str]:
    """The tensors of the base that adapters change by as much as one number."""
    changed = set()
    for name in subject.parameters:
        path, _, factor = name.rpartition("/")
        if factor == "lora_b":
            a, b = (np.asarray(subject.parameters[f"{path}/{each}"]) for each in FACTORS)
            maps = maps_of(subject.made.spec, name)
            changed |= {
                f"{each}.weight"
                for layer, each in enumerate(maps)
                if a[layer].any() and b[layer].any()
            }
    return changed


def _factor(stacked: hf_weights.Numbers, layer: int) -> np.ndarray:
    return np.asarray(stacked[layer]).T


def _folded(
    tensor: Tensor,
    parameters: Mapping[str, hf_weights.Numbers],
    name: str,
    layer: int,
    scale: float,
) -> np.ndarray:
    a, b = (np.asarray(parameters[name.replace("kernel", factor)][layer]) for factor in FACTORS)
    kernel = hf_weights.read(tensor).astype(np.float32)
    step = hf_weights.rows_a_block(kernel.shape)
    for row in range(0, len(kernel), step):  # the product need not be there as a whole
        kernel[row : row + step] = fold(
            kernel[row : row + step].T, a, b[:, row : row + step], scale
        ).T
    return kernel
