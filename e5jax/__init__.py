"""e5jax turns an open decoder language model into a text embedder."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from e5jax.inference.embedder import Embedder

__version__ = "0.1.0"
__all__ = ["Embedder"]


def __getattr__(name: str) -> object:
    """Imports `Embedder` when it is asked for: reading a configuration must not wait for JAX."""
    if name == "Embedder":
        from e5jax.inference.embedder import Embedder  # noqa: PLC0415  it brings JAX in

        return Embedder
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
