"""A stand-in for `e5jax.Embedder` and a retrieval task that it ranks in a known order."""

import math
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from e5jax.data.tokenizer import E5
from tests.beir import write_beir

# The cosine of document i with a query of angle 0 falls from d0 to d4.
ANGLES = {"d0": 0.0, "d1": 0.2, "d2": 0.4, "d3": 0.6, "d4": 0.8, "q1": 0.0, "q2": 0.9}


class StandIn:
    """Computes the vector of a text by a function, and records what it was asked for."""

    def __init__(self, vector: Callable[[str], np.ndarray]) -> None:
        self.tokenizer = SimpleNamespace(limit=512, templates=E5)
        self.calls: list[tuple[str, str | None]] = []  # text and instruction
        self.limits: list[int] = []
        self._vector = vector

    def encode(
        self,
        texts: Sequence[str],
        instruction: str | None = None,
        show_progress: bool = False,
        *,
        normalise: bool = True,
    ) -> np.ndarray:
        del show_progress, normalise
        self.calls += [(text, instruction) for text in texts]
        self.limits.append(self.tokenizer.limit)
        return np.stack([self._vector(text) for text in texts]).astype(np.float32)


def angle(name: str) -> np.ndarray:
    """The unit vector at a named angle."""
    return np.array([math.cos(ANGLES[name]), math.sin(ANGLES[name])])


def noise(text: str) -> np.ndarray:
    """A random vector that is the same for equal texts."""
    return np.random.default_rng(zlib.crc32(text.encode())).standard_normal(8)


def write_five(folder: Path) -> Path:
    """Five documents and two queries by their angles."""
    documents, queries = ({name: name for name in ANGLES if name[0] == kind} for kind in "dq")
    return write_beir(folder, documents, queries, ["q1 d1 1", "q1 d3 1", "q2 d0 1"])


def ndcg_of_five() -> float:
    """q1 ranks d0 to d4, with d1 and d3 relevant; q2 ranks d4 to d0, with d0 relevant."""
    q1 = (1 / math.log2(3) + 1 / math.log2(5)) / (1 / math.log2(2) + 1 / math.log2(3))
    q2 = (1 / math.log2(6)) / (1 / math.log2(2))
    return (q1 + q2) / 2
