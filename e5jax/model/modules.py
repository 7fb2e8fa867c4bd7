"""The modules of a sentence-transformers folder: its pooling, and what comes behind it: Dense, LayerNorm, Normalize.

Modules and their weights flow in from a folder; `apply` turns pooled vectors into final ones, in float32.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from e5jax.errors import ConfigError
from e5jax.jsonl import flag, positive, read_json, read_object
from e5jax.model.folder import MODULES, file_of
from e5jax.model.pooling import unit
from e5jax.model.weight_io import file_headers, read_slice

WEIGHTS = "model.safetensors"
LAYER_NORM_EPSILON = 1e-5  # PyTorch's default, which sentence-transformers does not change

# PyTorch's activation classes with their default arguments, by class name.
ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "Identity": lambda x: x,
    "Tanh": jnp.tanh,
    "Sigmoid": jax.nn.sigmoid,
    "ReLU": jax.nn.relu,
    "ReLU6": jax.nn.relu6,
    "LeakyReLU": jax.nn.leaky_relu,
    "ELU": jax.nn.elu,
    "CELU": jax.nn.celu,
    "SELU": jax.nn.selu,
    "GELU": lambda x: jax.nn.gelu(x, approximate=False),
    "SiLU": jax.nn.silu,
    "Mish": jax.nn.mish,
    "Softplus": jax.nn.softplus,
    "Softsign": jax.nn.soft_sign,
    "Hardtanh": jax.nn.hard_tanh,
    "LogSigmoid": jax.nn.log_sigmoid,
}

# Names of pooling modes: sentence-transformers' own, and the flags of versions before 6 in the order in which results are joined.
MODES = {
    "cls": "first",
    "max": "max",
    "mean": "mean",
    "mean_sqrt_len_tokens": "mean_sqrt",
    "weightedmean": "weighted_mean",
    "lasttoken": "last",
}
FLAGS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}

Kind = Literal["Dense", "LayerNorm", "Normalize"]
Weights = Mapping[str, Float[Array, "..."]]


class Module(NamedTuple):
    """One module behind pooling. `folder` is the subfolder with its config and weights."""

    kind: Kind
    folder: str = ""
    inputs: int = 0  # of Dense and LayerNorm
    outputs: int = 0
    bias: bool = True  # the other fields: of Dense
    activation: str = "Tanh"
    residual: bool = (
        False  # adds the input to the output, through a map of its own where their widths differ
    )

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The tensors in its weights file."""
        if self.kind == "LayerNorm":
            return {"norm.weight": (self.outputs,), "norm.bias": (self.outputs,)}
        if self.kind == "Normalize":
            return {}
        shapes: dict[str, tuple[int, ...]] = {"linear.weight": (self.outputs, self.inputs)}
        if self.bias:
            shapes["linear.bias"] = (self.outputs,)
        if self.residual and self.inputs != self.outputs:
            shapes["residual.weight"] = (self.outputs, self.inputs)
        return shapes


NORMALIZE = Module("Normalize")


class Pooling(NamedTuple):
    """How states become one vector."""

    modes: str  # as `model.pooling` has them, several joined with "+"
    include_prompt: bool  # False: the tokens of a prompt are left out
    width: int | None  # of the states


# --- reading -----------------------------------------------------------------------------------------------------


def read_modules(folder: Path, hidden: int) -> tuple[Pooling, tuple[Module, ...]]:
    """Pooling and the modules behind it, as `modules.json` lists them, for states of `hidden` dimensions."""
    path = file_of(folder, MODULES)
    entries = read_json(path)
    if not isinstance(entries, list) or not all(
        isinstance(entry, dict)
        and all(isinstance(entry.get(key), str) for key in ("name", "type", "path"))
        for entry in entries
    ):
        raise ConfigError(f"{path}: must be a list of modules, each with name, type and path")
    if len({entry["name"] for entry in entries}) < len(entries):
        raise ConfigError(f"{path}: two modules have one name")
    kinds = [_kind(entry["type"], path) for entry in entries]
    if kinds[:2] != ["Transformer", "Pooling"] or {"Transformer", "Pooling"} & set(kinds[2:]):
        raise ConfigError(
            f"{path}: modules {', '.join(kinds)}; supported are one Transformer, one Pooling, then others"
        )
    if entries[0]["path"] not in ("", "."):
        raise ConfigError(
            f"{path}: the Transformer lies in {entries[0]['path']!r}; move its files to {folder} and set path to ''"
        )
    for entry in entries[1:]:
        if Path(entry["path"]).is_absolute() or ".." in Path(entry["path"]).parts:
            raise ConfigError(f"{path}: path={entry['path']!r} leaves the folder")
    pooling = read_pooling(
        _config(folder, entries[1]["path"]), f"{folder}/{entries[1]['path']}/config.json", "mean"
    )
    behind = [
        _module(folder, kind, entry["path"])
        for kind, entry in zip(kinds[2:], entries[2:], strict=True)
        if kind != "Dropout"
    ]
    _check_widths(pooling, behind, hidden, folder)
    return pooling, tuple(behind)


def _kind(name: str, path: Path) -> str:
    known = ("Transformer", "Pooling", "Dense", "LayerNorm", "Normalize", "Dropout")
    kind = name.rpartition(".")[2]
    if not name.startswith("sentence_transformers.") or kind not in known:
        raise ConfigError(
            f"{path}: module {name!r} is not supported; supported are {', '.join(known)} of sentence_transformers"
        )
    return kind


def _config(folder: Path, path: str) -> dict[str, Any]:
    file = file_of(folder, f"{path}/config.json")
    return read_object(file) if file.is_file() else {}


def _module(folder: Path, kind: str, path: str) -> Module:
    config, at = _config(folder, path), f"{folder}/{path}/config.json"
    for name in ("module_input_name", "module_output_name"):
        if (value := config.get(name)) not in (None, "sentence_embedding"):
            raise ConfigError(f"{at}: {name}={value!r}; only sentence_embedding is supported")
    if kind == "Normalize":
        return NORMALIZE
    if kind == "LayerNorm":
        size = _needed(config, "dimension", at)
        return Module("LayerNorm", path, size, size)
    return Module(
        "Dense",
        path,
        _needed(config, "in_features", at),
        _needed(config, "out_features", at),
        flag(config, "bias", True, at),
        _activation(config.get("activation_function", "torch.nn.modules.activation.Tanh"), at),
        flag(config, "use_residual", False, at),
    )


def _activation(name: object, at: str) -> str:
    kind = name.rpartition(".")[2] if isinstance(name, str) and name.startswith("torch.nn.") else ""
    if kind not in ACTIVATIONS:
        raise ConfigError(
            f"{at}: activation_function={name!r} is not supported; supported in torch.nn are {', '.join(ACTIVATIONS)}"
        )
    return kind


def _check_widths(pooling: Pooling, modules: Sequence[Module], hidden: int, folder: Path) -> None:
    """Each module takes what the one before it gives."""
    if pooling.width != hidden:
        raise ConfigError(
            f"{folder}/{MODULES}: Pooling is of {pooling.width} dimensions, and the model has {hidden}"
        )
    width = hidden * len(pooling.modes.split("+"))
    for module in modules:
        if module.shapes and module.inputs != width:
            raise ConfigError(
                f"{folder}/{module.folder}: {module.kind} takes {module.inputs} dimensions, and gets {width}"
            )
        width = module.outputs or width


def read_pooling(config: Mapping[str, Any], at: str, default: str) -> Pooling:
    """Of a Pooling's config; `default` is the mode where it names none."""
    # sentence-transformers 6 names the modes; earlier versions set flags.
    value = config.get("pooling_mode")
    if value is None:
        value = [mode for name, mode in FLAGS.items() if flag(config, name, False, at)] or default
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise ConfigError(f"{at}: pooling_mode={value!r}; must be a name or a list of names")
    known = {
        *FLAGS,
        "pooling_mode",
        "include_prompt",
        "word_embedding_dimension",
        "embedding_dimension",
    }
    if strange := [name for name in names if name not in MODES] or sorted(
        name for name in config.keys() - known if config[name]
    ):
        raise ConfigError(
            f"{at}: pooling {strange[0]!r} is not supported; supported are {', '.join(MODES)}"
        )
    width = positive(config, "embedding_dimension", at) or positive(
        config, "word_embedding_dimension", at
    )
    return Pooling(
        "+".join(MODES[name] for name in names), flag(config, "include_prompt", True, at), width
    )


def _needed(config: dict, name: str, at: str) -> int:
    value = positive(config, name, at)
    if value is None:
        raise ConfigError(f"{at}: {name} is missing")
    return value


# --- weights and computation -------------------------------------------------------------------------------------


def load(folder: Path, modules: Sequence[Module]) -> list[Weights]:
    """The weights of each module in float32. Raises ConfigError naming the file and the tensor that is wrong."""
    return [_load(file_of(folder, f"{module.folder}/{WEIGHTS}"), module) for module in modules]


def _load(file: Path, module: Module) -> Weights:
    if not module.shapes:
        return {}
    if not file.is_file():
        raise ConfigError(
            f"{file}: no such file; save the folder again with sentence-transformers, as safetensors"
        )
    tensors = {tensor.name: tensor for tensor in file_headers(file)}
    shapes = {name: tensor.shape for name, tensor in tensors.items()}
    if shapes != module.shapes:
        raise ConfigError(
            f"{file}: holds {_listed(shapes)}, and the config of this {module.kind} needs {_listed(module.shapes)}"
        )
    values = {
        name: read_slice(tensor, tuple(slice(None) for _ in tensor.shape))
        for name, tensor in tensors.items()
    }
    if broken := [
        name for name, value in values.items() if not np.isfinite(value.astype(np.float32)).all()
    ]:
        raise ConfigError(f"{file}: NaN or infinity in {', '.join(broken)}; the file is damaged")
    return {name: jnp.asarray(value, jnp.float32) for name, value in values.items()}


def _listed(shapes: Mapping[str, tuple[int, ...]]) -> str:
    return ", ".join(f"{name} {list(shape)}" for name, shape in sorted(shapes.items())) or "nothing"


def apply(
    modules: Sequence[Module], weights: Sequence[Weights], vectors: Float[Array, "*n d"]
) -> Float[Array, "*n e"]:
    """The modules one after the other."""
    for module, own in zip(modules, weights, strict=True):
        with jax.named_scope(module.kind):
            vectors = _apply(module, own, vectors)
    return vectors


def _apply(module: Module, weights: Weights, vectors: Float[Array, "*n d"]) -> Float[Array, "*n e"]:
    if module.kind == "Normalize":
        return unit(vectors)
    if module.kind == "LayerNorm":
        centred = vectors - jnp.mean(vectors, axis=-1, keepdims=True)
        scaled = centred * jax.lax.rsqrt(
            jnp.mean(jnp.square(centred), axis=-1, keepdims=True) + LAYER_NORM_EPSILON
        )
        return _along(weights["norm.weight"], scaled) * scaled + _along(
            weights["norm.bias"], scaled
        )
    result = _linear(vectors, weights["linear.weight"])
    if module.bias:
        result += _along(weights["linear.bias"], result)
    result = ACTIVATIONS[module.activation](result)
    if not module.residual:
        return result
    return result + (
        _linear(vectors, weights["residual.weight"]) if "residual.weight" in weights else vectors
    )


def _linear(vectors: Float[Array, "*n d"], weight: Float[Array, "e d"]) -> Float[Array, "*n e"]:
    return jnp.einsum("...d,ed->...e", vectors, weight, precision=jax.lax.Precision.HIGHEST)


def _along(weight: Float[Array, " e"], vectors: Float[Array, "*n e"]) -> Float[Array, "*n e"]:
    return jnp.reshape(weight, (1,) * (vectors.ndim - 1) + weight.shape)
