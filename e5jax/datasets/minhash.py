"""An index of texts that finds an equal or a nearly equal one: the only home of the MinHash library.

Texts flow in, numbers of earlier texts flow out. MinHash proposes candidates, the exact Jaccard similarity of their shingles
decides. In memory is what finds candidates; the shingles themselves lie in a temporary file, texts are not kept.
"""

import os
import tempfile
from array import array
from contextlib import ExitStack
from functools import partial
from typing import NamedTuple, Self

import numpy as np
from jaxtyping import UInt32
from rensa import RMinHash, RMinHashLSH  # pyright: ignore[reportAttributeAccessIssue]  compiled, without stubs

from e5jax.datasets.normalise import Words, hashes, shingles

SHORT = 10  # words: below, one changed word in ten is none, so only an equal text is the same
THRESHOLD = 0.6
BANDS, ROWS = 16, 4
VARIANTS = 2  # of a text that are looked through for near copies; with all of them, a set made by template would take its square
SEED = 1


class Match(NamedTuple):
    """An earlier text, or what it stands for."""

    number: int
    similarity: float  # 1.0 also for texts with the same key
    equal: bool  # same key


class Sketch(NamedTuple):
    """What the index needs of a text."""

    key: bytes
    shingles: UInt32[np.ndarray, "shingles"]  # none for a short text
    minhash: RMinHash | None


def sketch(text: Words) -> Sketch:
    """Short texts get no MinHash: they match by key only."""
    if text.length < SHORT:
        return Sketch(text.key, np.zeros(0, np.uint32), None)
    parts = shingles(text.words)
    minhash = RMinHash(BANDS * ROWS, SEED)
    minhash.update(
        list(parts)
    )  # here: `from_token_sets` would hand the one text to a pool of threads
    return Sketch(text.key, hashes(parts), minhash)


_scratch = partial(tempfile.TemporaryFile, buffering=0)


class NearIndex:
    """Texts are numbered from 0 in the order in which they are added. Use with `with`: it holds a temporary file."""

    def __init__(self, threshold: float = THRESHOLD):
        self.threshold = threshold
        self._keys: dict[bytes, int] = {}  # to numbers
        self._near = RMinHashLSH(
            threshold, BANDS * ROWS, BANDS
        )  # of entries: texts, and variants of them
        self._open = ExitStack()
        self._file = self._open.enter_context(_scratch())
        self._ends = array("q", [0])  # of each entry's shingles in the file, counted in shingles
        self._numbers = array("q")  # of each entry
        self._variants = array("B")  # of each number, that have an entry

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def __len__(self) -> int:
        return len(self._variants)

    def add(self, text: Sketch) -> int:
        """The number of the new text. Of texts with one key the first is found."""
        number = len(self)
        self._variants.append(0)
        self._keys.setdefault(text.key, number)
        self._enter(text, number)
        return number

    def add_variant(self, text: Sketch, number: int) -> None:
        """From now on an equal text is found as this number, too, and so is a nearly equal one if there are few variants."""
        self._keys.setdefault(text.key, number)
        if self._variants[number] < VARIANTS:
            self._variants[number] += 1
            self._enter(text, number)

    def find(self, text: Sketch) -> Match | None:
        """The text with the same key, else the most similar one if its similarity is `threshold` or more."""
        if (equal := self._keys.get(text.key)) is not None:
            return Match(equal, 1.0, equal=True)
        if text.minhash is None:
            return None
        found = (
            (self._similarity(text.shingles, entry), -entry)
            for entry in self._near.query(text.minhash)
        )
        similarity, negative = max(found, default=(0.0, 0))
        return (
            Match(self._numbers[-negative], similarity, equal=False)
            if similarity >= self.threshold
            else None
        )

    def _enter(self, text: Sketch, number: int) -> None:
        if text.minhash is not None:
            self._near.insert(len(self._numbers), text.minhash)
        self._file.write(text.shingles.tobytes())
        self._ends.append(self._ends[-1] + len(text.shingles))
        self._numbers.append(number)

    def _similarity(self, own: UInt32[np.ndarray, "shingles"], entry: int) -> float:
        start, end = self._ends[entry], self._ends[entry + 1]
        small, large = sorted((len(own), end - start))
        if small < self.threshold * large:
            return 0.0  # no overlap could reach it
        other = np.frombuffer(
            os.pread(self._file.fileno(), 4 * (end - start), 4 * start), np.uint32
        )
        shared = len(np.intersect1d(own, other, assume_unique=True))
        return shared / (small + large - shared)
