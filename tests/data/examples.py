"""Examples in one line, and the kinds of text that cleaning is tested on."""

import random

from e5jax.data.records import Example

SYLLABLES = [a + b for a in "bdfgklmnprstvz" for b in ("a", "e", "i", "o", "u")]
HAN = [chr(code) for code in range(0x4E00, 0x4E00 + 1_500)]


def example(
    name: str, query: str, positive: str, negatives: tuple[str, ...] = (), source: str = ""
) -> Example:
    return Example(id=name, query=query, positives=(positive,), negatives=negatives, source=source)


def sentence(chooser: random.Random, length: int) -> list[str]:
    """Words of two syllables, some of them frequent."""
    rare = ["".join(chooser.choices(SYLLABLES, k=2)) for _ in range(length)]
    return [
        word if chooser.random() < 0.7 else chooser.choice(("of", "the", "and", "to"))
        for word in rare
    ]


def changed(words: list[str], chooser: random.Random, pool: list[str]) -> list[str]:
    """One in ten, at least one, replaced by another."""
    words = list(words)
    for place in chooser.sample(range(len(words)), max(1, round(len(words) / 10))):
        words[place] = next(
            word for word in iter(lambda: chooser.choice(pool), None) if word != words[place]
        )
    return words
