"""Adapters as PEFT stores them: read, put onto the tensors of their base, and named for a folder of our own.

A map `y = x W` of the base becomes `y = x (W + scale A B)`. PEFT has `A` as `[rank, in]` and `B` as `[out, rank]`, ours are
the other way round.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax

from e5jax.config import TARGETS, Lora, Target
from e5jax.errors import ConfigError
from e5jax.jsonl import read_object
from e5jax.model.families import FAMILIES
from e5jax.model.folder import ADAPTER, ADAPTER_WEIGHTS, base_of
from e5jax.model.spec import Spec, among_all
from e5jax.model.weight_io import Delta, Source, Tensor, file_headers, placed, plain

FILE = ADAPTER_WEIGHTS
PREFIX = "base_model.model."
FACTORS = {"lora_a": "lora_A", "lora_b": "lora_B"}
_NAME = re.compile(
    r"(?:base_model\.model\.)?(?:model\.)?(?P<map>.+)\.lora_(?P<factor>[AB])\.weight"
)

# What changes the numbers in a way that `Delta` does not know; the value that leaves them alone.
_UNKNOWN: dict[str, tuple[Any, ...]] = {
    "use_dora": (None, False),
    "bias": (None, "none"),
    "lora_bias": (None, False),
    "fan_in_fan_out": (None, False),
    "rank_pattern": (None, {}),
    "alpha_pattern": (None, {}),
    "modules_to_save": (None, []),
    "trainable_token_indices": (None, [], {}),
    "layer_replication": (None, []),
    "alora_invocation_tokens": (None, []),
    "target_parameters": (None, []),
    "use_qalora": (None, False),
    "use_bdlora": (None, False),
    "init_lora_weights": (
        None,
        True,
        False,
        "gaussian",
        "orthogonal",
        "eva",
    ),  # others change the base
}


class Adapter(NamedTuple):
    """An adapter folder: its factors by the map that they change, as `layers.0.mlp.up_proj`."""

    folder: Path
    base: Path
    rank: int
    alpha: float  # the scale is alpha / rank, whatever the convention of the folder
    deltas: dict[str, Delta]

    @property
    def targets(self) -> tuple[Target, ...]:
        """The maps that it changes."""
        changed = {name.rpartition(".")[2].removesuffix("_proj") for name in self.deltas}
        return tuple(target for target in TARGETS if target in changed)

    def on(self, base: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The tensors of the base, each with what the adapter adds to it. Raises ConfigError for what the base lacks."""
        if lost := sorted(name for name in self.deltas if f"{name}.weight" not in base):
            raise ConfigError(
                f"{self.folder / FILE}: adapts {', '.join(lost)}, and {self.base} has no such weights"
            )
        for name, (a, b, _) in self.deltas.items():
            wanted, found = base[f"{name}.weight"].shape, (b.shape[0], a.shape[1])
            if found != wanted:
                raise ConfigError(
                    f"{self.folder / FILE}: {name} is of {list(found)} numbers, and {self.base} has {list(wanted)}"
                )
        return {
            name: tensor._replace(delta=self.deltas.get(name.removesuffix(".weight")))
            for name, tensor in base.items()
        }

    def check_same(self, lora: Lora) -> None:
        """Training can go on with it only in its own shape. Raises ConfigError."""
        own = Lora(self.rank, self.alpha, lora.dropout, self.targets)
        if (lora.rank, lora.alpha, set(lora.targets)) != (own.rank, own.alpha, set(own.targets)):
            raise ConfigError(
                f"config.model.base={self.folder}: is an adapter with {_said(own)}, and config.lora has {_said(lora)}; set "
                "config.lora to the adapter's own to go on with it, or to none to train all parameters of base and adapter together"
            )

    def load(self, spec: Spec, wanted: Mapping[str, jax.ShapeDtypeStruct]) -> dict[str, jax.Array]:
        """The factors as our variables, each in its sharding and dtype. Raises ConfigError for those that are not there."""
        names = {
            path: [self._factor(name, path) for name in maps_of(spec, path)] for path in wanted
        }
        broken: set[str] = set()
        arrays = {
            path: placed(
                leaf, plain([Source(factor, True, broken) for factor in names[path]], stacked=True)
            )
            for path, leaf in wanted.items()
        }
        if broken:
            raise ConfigError(
                f"{self.folder / FILE}: NaN or infinity in {', '.join(sorted(broken))}; the file is damaged"
            )
        return arrays

    def _factor(self, name: str, path: str) -> Tensor:
        if name not in self.deltas:
            raise ConfigError(
                f"{self.folder / FILE}: nothing adapts {name}; training goes on only with an adapter of every layer"
            )
        return self.deltas[name].a if path.endswith("lora_a") else self.deltas[name].b


def read_adapter(folder: Path) -> Adapter | None:
    """The adapter of a folder, or None. Raises ConfigError for one that is damaged, or of a kind that is not known here."""
    base = base_of(folder)
    if base is None:
        return None
    at, config = folder / ADAPTER, read_object(folder / ADAPTER)
    if (kind := config.get("peft_type")) != "LORA":
        raise ConfigError(f"{at}: peft_type={kind!r}; only LORA is supported")
    for name, harmless in _UNKNOWN.items():
        if config.get(name) not in harmless:
            raise ConfigError(
                f"{at}: {name}={config[name]!r} is not supported; merge the adapter with PEFT first"
            )
    rank, alpha = config.get("r"), config.get("lora_alpha")
    if not isinstance(rank, int) or rank < 1 or not isinstance(alpha, int | float):
        raise ConfigError(
            f"{at}: r={rank!r} and lora_alpha={alpha!r}; both must be numbers, and r at least 1"
        )
    scale = alpha / (rank**0.5 if config.get("use_rslora") else rank)
    return Adapter(folder, base, rank, scale * rank, _deltas(folder / FILE, rank, scale))


def _deltas(file: Path, rank: int, scale: float) -> dict[str, Delta]:
    if not file.is_file():
        raise ConfigError(f"{file}: no such file; an adapter is read from safetensors only")
    factors: dict[str, dict[str, Tensor]] = {}
    for tensor in file_headers(file):
        found = _NAME.fullmatch(tensor.name)
        if found is None:
            raise ConfigError(f"{file}: {tensor.name} is not a factor of a low-rank adapter")
        factors.setdefault(found["map"], {})[found["factor"]] = tensor
    if not factors:
        raise ConfigError(f"{file}: there is no tensor in it")
    for name, pair in factors.items():
        if set(pair) != {"A", "B"} or pair["A"].shape[0] != rank or pair["B"].shape[1] != rank:
            shapes = " and ".join(
                f"{factor} {list(tensor.shape)}" for factor, tensor in sorted(pair.items())
            )
            raise ConfigError(
                f"{file}: {name} has {shapes}; rank {rank} needs A [{rank}, inputs] and B [outputs, {rank}]"
            )
    return {name: Delta(pair["A"], pair["B"], scale) for name, pair in factors.items()}


def maps_of(spec: Spec, path: str) -> list[str]:
    """The map that a variable like `layers/ff/up/lora_a` adapts, in each layer that the variable holds."""
    kernel, stack = (
        FAMILIES[spec.family].NAMES[f"{among_all(path).rpartition('/')[0]}/kernel"],
        spec.stack(path),
    )
    assert stack is not None, "adapters are in layers"
    return [kernel.format(layer).removesuffix(".weight") for layer in stack]


def _said(lora: Lora) -> str:
    return f"rank={lora.rank}, alpha={lora.alpha:g}, targets={','.join(lora.targets)}"
