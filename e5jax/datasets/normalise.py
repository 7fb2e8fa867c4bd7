"""The words of a text, for comparing texts: text flows in, a key for equal texts, words, shingles and n-grams flow out.

Words are what is left between punctuation, symbols and spaces. Scripts written without spaces have no such words: there every
character is one, and counts as half a word where the length of a text matters.
"""

import functools
import hashlib
import itertools
import re
import unicodedata
from collections.abc import Sequence
from typing import NamedTuple
from zlib import crc32

import numpy as np
from jaxtyping import UInt32, UInt64

ENDS = " .?!。…"  # what may end a sentence or be left out there; full-width ？ and ！ are ? and ! after NFKC
SPACELESS = (  # first and last character
    (0x0E00, 0x0EFF),  # Thai, Lao
    (0x1000, 0x109F),  # Burmese
    (0x1780, 0x17FF),  # Khmer
    (0x3040, 0x30FF),  # Hiragana, Katakana
    (0x3400, 0x9FFF),  # Han
    (0xF900, 0xFAFF),
    (0x20000, 0x3FFFF),
)
_HALF = re.compile("[" + "".join(f"{chr(first)}-{chr(last)}" for first, last in SPACELESS) + "]")
_FACTOR = np.uint64(0x9E3779B97F4A7C15)  # odd, so that no product loses bits


class Words(NamedTuple):
    """A text taken apart."""

    key: bytes  # equal for texts that are the same but for case, width, spacing and the mark at their end
    words: list[str]
    length: float  # in words, a character of a spaceless script being half a word


def read(text: str) -> Words:
    """Takes a text apart. `C++` and `C#` have the same words, but not the same key."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    key = hashlib.blake2b(
        " ".join(folded.split()).rstrip(ENDS).encode("utf-8", "surrogatepass"), digest_size=16
    ).digest()
    parted = folded.translate(_TABLE)
    words = parted.split()
    halves = 0 if folded.isascii() else len(_HALF.findall(parted))
    return Words(key, words, len(words) - halves / 2)


def shingles(words: Sequence[str]) -> set[str]:
    """The words and the pairs of neighbours: what two texts are compared by.

    Pairs see the order, single words survive when many are changed: with both, a changed word in ten leaves a Jaccard
    similarity of 0.64 or more (docs/decisions/0012-near-duplicates.md).
    """
    return {*words, *map(" ".join, itertools.pairwise(words))}


def hashes(parts: set[str]) -> UInt32[np.ndarray, "parts"]:
    """Sorted 32-bit hashes, the same in every process."""
    return np.unique(
        np.fromiter(
            (crc32(part.encode("utf-8", "surrogatepass")) for part in parts), np.uint32, len(parts)
        )
    )


def ngrams(words: Sequence[str], n: int) -> UInt64[np.ndarray, "ngrams"]:
    """Sorted 64-bit hashes of all different runs of `n` words; none for shorter texts."""
    if len(words) < n:
        return np.zeros(0, np.uint64)
    ids = np.fromiter(map(_identity, words), np.uint64, len(words))
    found = np.zeros(len(words) - n + 1, np.uint64)
    for i in range(n):
        found = (found ^ ids[i : i + len(found)]) * _FACTOR
    return np.unique(found)


def _spaceless(code: int) -> bool:
    return any(first <= code <= last for first, last in SPACELESS)


@functools.lru_cache(maxsize=1 << 16)
def _identity(word: str) -> int:
    return int.from_bytes(
        hashlib.blake2b(word.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little"
    )


class _Table(dict[int, str]):
    """For `str.translate`, filled as characters are met; to regular expressions the vowel signs of Hindi are no letters."""

    def __missing__(self, code: int) -> str:
        category = unicodedata.category(chr(code))
        if category == "Cf":
            self[code] = ""  # joiners, soft hyphens
        elif category[0] in "PSZC":
            self[code] = " "
        else:
            self[code] = f" {chr(code)} " if _spaceless(code) else chr(code)
        return self[code]


_TABLE = _Table()
