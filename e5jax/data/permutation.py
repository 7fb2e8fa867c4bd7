"""Shuffles that are computed, not stored: where each of `size` places goes under a key, for any number of places at once.

A Feistel network is a permutation of 2^2b numbers, whatever its rounds do; a place that leaves `size` is sent on until it is back
inside. Nothing is kept in memory, so a set of any size is shuffled at once, in every process alike.
"""

import hashlib

import numpy as np
from jaxtyping import Int, UInt64

ROUNDS = 8
LEAST = 3  # bits of a half: fewer numbers have too few Feistel permutations to be fair
_WEYL = np.uint64(0x9E3779B97F4A7C15)
_MIX = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))


def key(*parts: object) -> np.uint64:
    """A key from whatever it is the key of."""
    return np.uint64(
        int.from_bytes(hashlib.blake2b(repr(parts).encode(), digest_size=8).digest(), "little")
    )


def keys(
    of: np.uint64 | UInt64[np.ndarray, " n"], numbers: Int[np.ndarray, " n"]
) -> UInt64[np.ndarray, " n"]:
    """A key for each number, from one for all or from one each."""
    return _mixed(numbers.astype(np.uint64) * _WEYL ^ of)


def shuffled(values: Int[np.ndarray, " n"], of: np.uint64) -> Int[np.ndarray, " n"]:
    """All values in an order that the key decides."""
    return values[np.argsort(keys(of, np.arange(len(values))), kind="stable")]


def permute(
    places: Int[np.ndarray, " n"], sizes: Int[np.ndarray, " n"], of: UInt64[np.ndarray, " n"]
) -> Int[np.ndarray, " n"]:
    """Where each place goes among as many as its size; places of one size and key go to different ones."""
    bits = np.frexp(np.maximum(sizes - 1, 0).astype(np.float64))[1]  # of the largest place
    half = np.maximum(-(-bits // 2), LEAST).astype(np.uint64)
    went = places.astype(np.uint64)
    outside = np.arange(len(places))
    while len(outside):
        went[outside] = _feistel(went[outside], half[outside], of[outside])
        outside = outside[went[outside] >= sizes[outside].astype(np.uint64)]
    return went.astype(np.int64)


def _feistel(
    numbers: UInt64[np.ndarray, " n"], half: UInt64[np.ndarray, " n"], of: UInt64[np.ndarray, " n"]
) -> UInt64[np.ndarray, " n"]:
    """A permutation of the numbers of 2 × half bits."""
    mask = (np.uint64(1) << half) - np.uint64(1)
    left, right = numbers >> half, numbers & mask
    for number in range(ROUNDS):
        mixed = _mixed(right * _WEYL + of + np.full_like(of, number) * _MIX[0])
        left, right = right, left ^ (mixed & mask)
    return left << half | right


def _mixed(numbers: UInt64[np.ndarray, " n"]) -> UInt64[np.ndarray, " n"]:
    """SplitMix64's finaliser: every bit of the result depends on every bit of the number."""
    numbers = (numbers ^ numbers >> np.uint64(30)) * _MIX[0]
    numbers = (numbers ^ numbers >> np.uint64(27)) * _MIX[1]
    return numbers ^ numbers >> np.uint64(31)
