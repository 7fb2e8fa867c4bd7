"""What a decoder is made of, whichever family it comes from."""

from typing import NamedTuple

from e5jax.config import Mesh, Model
from e5jax.errors import ConfigError


class Spec(NamedTuple):
    """Sizes and constants of a decoder (dimension letters as in `records`)."""

    family: str
    vocab: int
    hidden: int
    ff: int
    layers: int
    heads: int
    kv_heads: int
    head_size: int
    theta: float  # base of the rotary embedding
    window: int | None  # a token sees itself and the window - 1 tokens before it
    epsilon: float  # of RMSNorm
    bos: int | None  # None: the folder names no such token
    eos: int | None
    bias: bool = False  # of every linear map
    added: int = 0  # new tokens, behind those of `vocab`
    top: int = 0  # of the layers, the last ones whose variables are called `top/…`
    causal: bool = True  # False: a token also sees those after it; a window is then of so many tokens on each side

    @property
    def matrix_parameters(self) -> int:
        """Parameters of all linear maps, the embedding table left out (it is looked up, not multiplied)."""
        attention = 2 * self.hidden * self.head_size * (self.heads + self.kv_heads)
        return self.layers * (attention + 3 * self.hidden * self.ff)

    def stack(self, path: str) -> range | None:
        """The layers that a variable of this name holds, one behind the other; None where it is of no layer."""
        middle = self.layers - self.top
        return {"layers": range(middle), "top": range(middle, self.layers)}.get(
            path.partition("/")[0]
        )

    def changed(self, model: Model) -> "Spec":
        """The shape with the configuration's own rotary base, window and direction, where it has any."""
        return self._replace(
            theta=self.theta if model.theta is None else model.theta,
            window=self.window if model.window is None else model.window or None,  # 0: no window
            bias=self.bias or model.bias,
            causal=self.causal if model.causal is None else model.causal,
        )


def check_bias(spec: Spec, limit: int, at: str = "config") -> None:
    """An export of a decoder with biases is Llama's, which knows no window."""
    if spec.bias and spec.window is not None and spec.window < limit:
        raise ConfigError(
            f"{at}.model.bias: decoders with biases are exported as Llama's, which have no window, and the window is {spec.window} "
            f"of {limit} tokens; set {at}.model.window=0"
        )


def among_all(path: str) -> str:
    """What a variable is called where no layers are apart."""
    return f"layers/{path.removeprefix('top/')}" if path.startswith("top/") else path


def check_top(spec: Spec, top: int, at: str = "config") -> None:
    """The last layers are some of them."""
    if top >= spec.layers:
        raise ConfigError(
            f"{at}.select.top={top}: the model has {spec.layers} layers; for all of them set 0, they are `layers/*`"
        )


def check_divisible(spec: Spec, mesh: Mesh, at: str = "config") -> None:
    """Sharded dimensions must divide over their mesh axes; -1 counts as 1 until devices are known."""
    for axis, size, names in [
        ("fsdp", mesh.fsdp, ("hidden",)),
        ("tensor", mesh.tensor, ("heads", "kv_heads", "ff")),
    ]:
        for name in names:
            if getattr(spec, name) % max(size, 1):
                raise ConfigError(
                    f"{at}.mesh.{axis}={size}: the model's {name}={getattr(spec, name)} does not divide over it"
                )


def check_dimensions(spec: Spec, dimensions: int, at: str = "config") -> None:
    """An export cannot keep more than there are."""
    if dimensions > spec.hidden:
        raise ConfigError(
            f"{at}.export.dimensions={dimensions}: the model has {spec.hidden}; keep fewer, or 0 for all"
        )
