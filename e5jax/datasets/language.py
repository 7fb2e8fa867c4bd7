"""The language of a text and of an example: the only home of py3langid."""

import functools
from collections.abc import Iterable, Iterator

from py3langid.langid import MODEL_FILE, LanguageIdentifier

from e5jax.data.records import Example
from e5jax.datasets.example_texts import texts_of
from e5jax.datasets.normalise import read

CONFIDENCE = 0.5
SHORT = 3  # words; names and titles are of no language
LOOKED_AT = 1_000  # characters


def language(text: str, confidence: float = CONFIDENCE) -> str:
    """ISO 639-1 code, or "" if the text is short, the model not as sure as `confidence`, or the language has no such code.

    The first call loads the model.
    """
    looked_at = text[:LOOKED_AT]
    found = identify(looked_at, confidence) if read(looked_at).length >= SHORT else ""
    return found if len(found) == 2 else ""


def identify(text: str, confidence: float = CONFIDENCE) -> str:
    """The model's own label, which may be of three letters: `arz` for Egyptian Arabic. Reads the whole text, however short."""
    found, probability = _identifier().classify(text)
    return found if probability >= confidence else ""


@functools.cache
def known() -> frozenset[str]:
    """The labels that the model can give."""
    return frozenset(_identifier().labels)


def language_of(example: Example, confidence: float = CONFIDENCE) -> str:
    """What the example says; else the language of its positives, which are longer than queries, or of its query."""
    if example.language:
        return example.language
    texts = texts_of(example)
    positives = " ".join(text for part, text in texts if part == "positive")
    return language(positives, confidence) or language(texts[0][1], confidence)


def with_language(examples: Iterable[Example]) -> Iterator[Example]:
    """The examples, with their language filled in where it is empty and can be told."""
    for example in examples:
        yield example._replace(language=language_of(example))


@functools.cache
def _identifier():
    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
