"""Objects of a JSON array, one at a time: the array may be far larger than memory.

Where an object is no JSON, reading goes on at the next `{` before a name that objects of this format begin with. Inside a
string there is no such place, its quotes are escaped; inside an object it means that one was not closed.
"""

import codecs
import json
import re
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from e5jax.data.compressed import DamagedError, Limits
from e5jax.data.files import Rejected
from e5jax.errors import RecordError
from e5jax.jsonl import STRICT

_BETWEEN = re.compile(r"[\s,\[\]]*")
_LENIENT = json.JSONDecoder()  # finds the end of what STRICT refuses
_MARGIN = 32  # characters: an error nearer to the end of what has been read may be the end itself


class Element(NamedTuple):
    """An object and the line it begins in."""

    number: int
    values: dict[str, Any]


class _Text:
    """The part of a file that is at hand."""

    def __init__(self, pieces: Iterable[bytes]):
        decoder = codecs.getincrementaldecoder("utf-8-sig")(
            "surrogateescape"
        )  # wrong UTF-8 becomes lone surrogates
        self._pieces = (decoder.decode(piece) for piece in pieces)
        self.held, self.at, self.number, self.ended = "", 0, 1, False

    def more(self) -> None:
        """Forgets what has been used and reads at least as much again as is held."""
        parts = [self.held[self.at :]]
        wanted = size = max(len(parts[0]), 1)
        while size < 2 * wanted and not self.ended:
            piece = next(self._pieces, None)
            self.ended = piece is None
            parts.append(piece or "")
            size += len(parts[-1])
        self.held, self.at = "".join(parts), 0

    def use(self, end: int) -> None:
        """Goes on to a place."""
        self.number += self.held.count("\n", self.at, end)
        self.at = end


def elements(
    pieces: Iterable[bytes], file: str, limits: Limits, names: tuple[str, ...]
) -> Iterator[Element | Rejected]:
    """The objects of an array of objects that begin with one of these names."""
    text = _Text(pieces)
    start = re.compile(r"\{\s*\"(?:" + "|".join(map(re.escape, names)) + r")\"\s*:")
    closed = False
    try:
        while True:
            between = _BETWEEN.match(text.held, text.at)
            assert between is not None, "it matches nothing, too"
            end = between.end()
            closed = closed or "]" in text.held[text.at : end]
            text.use(end)
            if text.at < len(text.held):
                closed = False
                yield from _element(text, file, limits, start)
            elif text.ended:
                break
            else:
                text.more()
        if not closed:
            yield Rejected(file, text.number, "the array is not closed: the file ends before its ]")
    except DamagedError as error:
        yield Rejected(
            file, text.number, f"compressed data is damaged: {error}; nothing after this was read"
        )


def _element(
    text: _Text, file: str, limits: Limits, start: re.Pattern[str]
) -> Iterator[Element | Rejected]:
    """One object, or what is wrong at this place."""
    number = text.number
    if text.held[text.at] != "{":
        yield Rejected(file, number, "not a JSON object")
        return _search(text, start)
    try:
        values, end = _decode(STRICT, text, limits, start)
    except RecordError as error:
        yield Rejected(file, number, str(error))
        return _skip(text, limits, start)
    text.use(end)
    yield Element(number, values)
    return None


def _decode(
    decoder: json.JSONDecoder, text: _Text, limits: Limits, start: re.Pattern[str]
) -> tuple[Any, int]:
    """The value at this place and where it ends, reading on while it may only be cut off."""
    while True:
        try:
            values, end = decoder.raw_decode(text.held, text.at)
            if start.search(text.held, text.at + 1, end):
                raise RecordError("object is not closed: the next one begins inside it")
            return values, end
        except RecordError:
            raise
        except RecursionError as error:
            raise RecordError("nested too deeply") from error
        except json.JSONDecodeError as error:
            cut = error.pos > len(text.held) - _MARGIN or error.msg.startswith(
                "Unterminated string"
            )
            if text.ended or not cut:
                raise RecordError(
                    f"not JSON: {error.msg} {error.pos - text.at} characters into the object"
                ) from error
        except ValueError as error:
            raise RecordError(f"not JSON: {error}") from error
        if len(text.held) - text.at > limits.line_bytes:
            raise RecordError(f"object too long: more than {limits.line_bytes:,} characters")
        text.more()


def _skip(text: _Text, limits: Limits, start: re.Pattern[str]) -> None:
    """Goes on behind the value at this place; where that cannot be told, to where an object may begin, or to the end."""
    try:
        text.use(_decode(_LENIENT, text, limits, start)[1])
    except RecordError:
        _search(text, start)


def _search(text: _Text, start: re.Pattern[str]) -> None:
    text.use(text.at + 1)
    while not (found := start.search(text.held, text.at)) and not text.ended:
        text.use(max(text.at, len(text.held) - 256))  # a beginning may be cut in two
        text.more()
    text.use(found.start() if found else len(text.held))
