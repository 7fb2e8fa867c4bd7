"""The languages that examples are asked for in: ISO codes, English names, weights."""

from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from typing import NamedTuple

from e5jax.datasets.language import known
from e5jax.synth.sampling import Choices, parse, weighted

# What an identifier takes for each other: standards of one language, macrolanguages, the closest neighbours.
CLOSE = (
    {"id", "ms"},
    {"bs", "hr", "sr"},
    {"no", "nb", "nn", "da"},
    {"cs", "sk"},
    {"zh", "wuu", "yue"},
    {"ar", "ary", "arz"},
    {"ku", "sdh"},
    {"uz", "uzs"},
    {"gl", "pt"},
    {"gl", "es"},
    {"es", "ext", "an"},
    {"it", "vec", "lij"},
    {"fr", "gcr", "gcf"},
    {"lv", "ltg"},
    {"he", "hbo"},
    {"el", "grc"},
    {"xh", "zu"},
    {"ga", "gd"},
    {"en", "pcm"},
    {"tl", "bcl"},
    {"mk", "sr"},
)


class Language(NamedTuple):
    """One line of languages.tsv."""

    code: str
    name: str
    weight: float


@cache
def table() -> dict[str, Language]:
    """All languages, by code."""
    lines = files("e5jax.synth").joinpath("languages.tsv").read_text(encoding="utf-8").splitlines()
    rows = (line.split("\t") for line in lines if not line.startswith("#"))
    next(rows)  # the header
    return {code: Language(code, name, float(weight)) for code, name, weight in rows}


def choices(texts: Sequence[str]) -> Choices:
    """The weighted codes of a configuration, or those of the table. Raises ValueError for a code that the table lacks."""
    if not texts:
        return weighted([(language.code, language.weight) for language in table().values()])
    found = parse(texts)
    if unknown := sorted(set(found.values) - set(table())):
        raise ValueError(
            f"{', '.join(unknown)}: no code of languages.tsv; those are {', '.join(table())}"
        )
    return found


@cache
def taken_for(code: str) -> frozenset[str]:
    """The codes that the identifier may give a text in this language; empty if it does not know the language."""
    if code not in known():
        return frozenset()
    return frozenset({code}.union(*(group for group in CLOSE if code in group)))
