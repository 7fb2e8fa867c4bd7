"""Vectors that were computed once: texts and how they were put flow in, the same vectors flow out, from memory of the disk.

One `.npy` for each call of a task, named after all that its vectors depend on. mteb asks for a corpus in parts of 50,000 texts,
so an evaluation that was killed goes on from the part it was at.
"""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from e5jax.inference.shards import write_array


class Vectors(NamedTuple):
    """A folder of vectors of one model; `of` says which, on what and how exactly it runs."""

    folder: Path
    of: str

    def get(
        self,
        texts: Sequence[str],
        instruction: str,
        limit: int,
        make: Callable[[], Float[np.ndarray, "b d"]],
    ) -> Float[np.ndarray, "b d"]:
        """The vectors of these texts, put with this instruction and cut at `limit` tokens."""
        path = self.folder / f"{self._key(texts, instruction, limit)}.npy"
        if not path.is_file():
            write_array(path, make())
        return np.load(path, allow_pickle=False)

    def _key(self, texts: Sequence[str], instruction: str, limit: int) -> str:
        digest = hashlib.blake2b(digest_size=20)
        for part in (self.of, str(limit), instruction, *texts):
            data = part.encode("utf-8", "surrogatepass")
            digest.update(f"{len(data)}:".encode())  # so that no two lists of texts are one string
            digest.update(data)
        return digest.hexdigest()
