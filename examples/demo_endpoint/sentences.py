"""Sentences in many languages: the translation catalogues that packages carry. Files are read, nothing of them is run."""

import importlib.util
import re
import struct
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from random import Random
from typing import NamedTuple

from e5jax.datasets.normalise import read
from e5jax.errors import ConfigError

PACKAGES = {
    "django": ("django",),
    "pycountry": ("iso3166-1", "iso4217", "iso15924"),
}  # later ones for languages still missing
CODES = {"nb": "no", "zh_Hans": "zh"}  # catalogues whose ISO code is not their first part
_MAGIC = 0x950412DE
_UNFIT = re.compile(r"[%{}<>\\|\n\x00-\x1f]|https?:|&\w+;")
_SPACES = re.compile(r"\s+")


class Piece(NamedTuple):
    """A sentence or a phrase, in parts that may stand alone: words, or characters where there are no spaces."""

    parts: tuple[str, ...]
    gap: str
    length: float  # in words


def text(language: str, least: int, most: int, random: Random) -> str:
    """A text of so many words, put together from pieces; in English where the language has none."""
    known = pieces(language) or pieces("en")
    wanted, made, length = random.uniform(least, most), list[str](), 0.0
    while length < max(wanted, least):
        piece = random.choice(known)
        share = min(1.0, min(wanted - length, max(2.0, wanted / 2)) / piece.length)
        count = max(1, int(len(piece.parts) * share))
        start = random.randrange(len(piece.parts) - count + 1)
        made.append(piece.gap.join(piece.parts[start : start + count]))
        length += piece.length * count / len(piece.parts)
    return " ".join(made)


@cache
def pieces(language: str) -> tuple[Piece, ...]:
    """All that the catalogues have in a language."""
    if language == "en":
        texts = (
            original
            for path in catalogues().get("de", ())
            for original, _ in entries(path.read_bytes())
        )
    else:
        texts = (
            translated
            for path in catalogues().get(language, ())
            for _, translated in entries(path.read_bytes())
        )
    return tuple(
        _piece(unique)
        for unique in dict.fromkeys(_SPACES.sub(" ", text.strip()) for text in texts)
        if _fits(unique)
    )


def _fits(candidate: str) -> bool:
    return not _UNFIT.search(candidate) and read(candidate).length >= 1


def _piece(fit: str) -> Piece:
    length = read(fit).length
    spaced = len(fit.split()) > len(fit) / 12
    return Piece(tuple(fit.split(" ")) if spaced else tuple(fit), " " if spaced else "", length)


@cache
def catalogues() -> dict[str, tuple[Path, ...]]:
    """The files of each language, by ISO code. Raises ConfigError where no package has any."""
    found: dict[str, list[Path]] = {}
    for package, files in PACKAGES.items():
        spec = importlib.util.find_spec(package)
        before = set(found)
        for folder in (spec.submodule_search_locations or ()) if spec else ():
            for path in sorted(
                path for name in files for path in Path(folder).rglob(f"LC_MESSAGES/{name}.mo")
            ):
                name = path.parent.parent.name
                code = CODES.get(name, name)
                if re.fullmatch("[a-z]{2,3}", code) and code not in before:
                    found.setdefault(code, []).append(path)
    if not found:
        raise ConfigError(
            "the demo endpoint speaks through Django's translations: pip install 'e5jax[demo]'"
        )
    return {code: tuple(paths) for code, paths in found.items()}


def entries(data: bytes) -> Iterator[tuple[str, str]]:
    """Originals and translations of a compiled catalogue (GNU gettext manual, "The Format of GNU MO Files")."""
    magic, _, count, originals, translations = struct.unpack_from("<5I", data)
    assert magic == _MAGIC  # what the packages ship is little-endian

    def string(table: int, i: int) -> str:
        length, start = struct.unpack_from("<2I", data, table + 8 * i)
        return data[start : start + length].decode("utf-8").split("\0")[0]

    for i in range(count):
        if original := string(originals, i):  # the empty one has the header
            yield original.rpartition("\x04")[2], string(translations, i)
