"""e5jax turns an open decoder language model into a text embedder."""

from e5jax.embedder import Embedder

__version__ = "0.1.0"
__all__ = ["Embedder"]
