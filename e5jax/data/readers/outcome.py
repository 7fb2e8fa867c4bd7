"""What a reader is told, and what it gives for a line."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from e5jax.records import Example


class Rejected(NamedTuple):
    """A line, or a row, that gave no example. The reason up to its first colon is one of a few; details follow."""

    file: str
    line: int  # from 1
    reason: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.reason}"

    @property
    def kind(self) -> str:
        """The reason without its details, for counting."""
        return self.reason.partition(":")[0]


Outcome = Example | Rejected


class Limits(NamedTuple):
    """What a file may ask of this machine."""

    line_bytes: int = 16 << 20  # of one line, or of one element of a JSON array
    ratio: float = 200.0  # decompressed to compressed bytes, after the first MiB; text has 3 to 10, repeated lines 100
    total_bytes: int = 256 << 30  # decompressed bytes of a file


LIMITS = Limits()


class Options(NamedTuple):
    """How to read, and what to write into examples whose format does not say it."""

    instruction: str = ""
    language: str = ""
    source: str = ""  # empty: the name of the file
    split: str = "train"
    columns: Mapping[str, str] = MappingProxyType({})  # our name -> the file's: {"query": "title", "positive": "body"}
    limits: Limits = LIMITS
    relevance: int = 1  # least grade of a positive, where judgments have grades


OPTIONS = Options()
