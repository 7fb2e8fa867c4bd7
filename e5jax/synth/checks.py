"""Whether a well-formed reply is the example that was asked for."""

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from itertools import combinations
from typing import NamedTuple

from e5jax.datasets.language import identify
from e5jax.datasets.normalise import Words, read
from e5jax.synth.config import Checks
from e5jax.synth.families import Family
from e5jax.synth.languages import taken_for
from e5jax.synth.reasons import UnfitError
from e5jax.synth.text_spec import Wanted

GRAM = 8  # words
STRIDE = 4
READ = 800  # characters, from which the words of a longer text are estimated; what is copied or the same begins with it
LOOKED_AT = 100  # bytes that the identifier sees
TELLING = 5  # words, below which the language of a text is not looked at
LABEL_LETTERS = 5  # shorter labels are words that any text has


class Found(NamedTuple):
    """What was found out about the texts on the way."""

    identified: bool  # the languages of all that is long enough to tell
    words: dict[str, float]  # of each text


class Text(NamedTuple):
    """A text, the words of its beginning, and about how many it has in all."""

    text: str
    words: Words
    length: float


def _text(text: str) -> Text:
    words = read(text[:READ])
    return Text(text, words, words.length * max(1.0, len(text) / READ))


def check(
    family: Family,
    values: Mapping[str, str],
    wanted: Mapping[str, Wanted],
    given: Sequence[str],
    rules: Checks,
) -> Found:
    """Raises UnfitError. `given` is what the model was told."""
    texts = {name: _text(text) for name, text in values.items()}
    _lengths(texts, wanted, rules.length_slack)
    _different(texts)
    _not_copied(texts, given, rules.copied)
    if family.label:
        _no_label(family, texts)
    identified = _languages(family, texts, wanted, rules.language_confidence)
    return Found(identified, {name: text.length for name, text in texts.items()})


def _lengths(texts: Mapping[str, Text], wanted: Mapping[str, Wanted], slack: float) -> None:
    for name, text in texts.items():
        asked, words = wanted[name], text.length
        if words * slack < asked.least:
            raise UnfitError(
                "short", f"{name} has {words:.0f} words; asked for {asked.least} to {asked.most}"
            )
        if words > asked.most * slack:
            raise UnfitError(
                "long", f"{name} has {words:.0f} words; asked for {asked.least} to {asked.most}"
            )


def _different(texts: Mapping[str, Text]) -> None:
    for (name, text), (other, second) in combinations(texts.items(), 2):
        if text.words.key == second.words.key:
            raise UnfitError("same-text", f"{name} and {other} are the same")


def _not_copied(texts: Mapping[str, Text], given: Sequence[str], share: float) -> None:
    theirs = [grams for grams in map(_given_grams, given) if grams]
    for name, text in texts.items():
        own = _windows(text.words.words)
        if any(sum(gram in known for gram in own) > share * len(own) for known in theirs):
            raise UnfitError("copied", f"{name} is from the prompt")


def _grams(words: list[str]) -> Iterable[tuple[str, ...]]:
    return zip(*(words[i:] for i in range(GRAM)), strict=False)


def _windows(words: list[str]) -> list[tuple[str, ...]]:
    """Every STRIDE-th of them, which is enough to tell a share."""
    return list(zip(*(words[i::STRIDE] for i in range(GRAM)), strict=False))


@lru_cache(maxsize=1024)
def _given_grams(text: str) -> frozenset[tuple[str, ...]]:
    return frozenset(_grams(read(text).words))


def _no_label(family: Family, texts: Mapping[str, Text]) -> None:
    """Whole words in a row, so that `art` is not found in `party`."""
    text = " ".join(texts[family.query.name].words.words)
    for part in family.parts[1:]:
        label = " ".join(texts[part.name].words.words)
        if len(label) >= LABEL_LETTERS and f" {label} " in f" {text} ":
            raise UnfitError("label-in-text", f"{part.name} stands in {family.query.name}")


def _languages(
    family: Family, texts: Mapping[str, Text], wanted: Mapping[str, Wanted], confidence: float
) -> bool:
    """The query by itself, the others together: labels are too short to be told apart from other languages'."""
    query = family.query.name
    rest = [part.name for part in family.parts[1:] if not family.label]
    told = []
    for names in ([query], rest):
        allowed = taken_for(wanted[names[0]].language) if names else frozenset()
        if not allowed or sum(texts[name].words.length for name in names) < TELLING:
            continue
        found = identify(
            " ".join(_beginning(texts[name].text, LOOKED_AT // len(names)) for name in names),
            confidence,
        )
        if found and found not in allowed:
            raise UnfitError(
                "language", f"{' and '.join(names)}: {found} instead of {wanted[names[0]].language}"
            )
        told.append(bool(found))
    return any(told) and all(told)


def _beginning(text: str, size: int) -> str:
    return text[:size].encode("utf-8", "replace")[:size].decode("utf-8", "ignore")
