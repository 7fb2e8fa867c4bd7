"""What a reader is told, and what it gives for a line."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from e5jax.data.compressed import LIMITS, Limits
from e5jax.data.files import Rejected
from e5jax.data.records import Example

Outcome = Example | Rejected


class Options(NamedTuple):
    """How to read, and what to write into examples whose format does not say it."""

    instruction: str = ""
    language: str = ""
    source: str = ""  # empty: the name of the file
    split: str = "train"
    columns: Mapping[str, str] = MappingProxyType(
        {}
    )  # our name -> the file's: {"query": "title", "positive": "body"}
    limits: Limits = LIMITS
    relevance: int = 1  # least grade of a positive, where judgments have grades
    threshold: float | None = (
        None  # least label or score of a positive in `rows`; None: labels must be 0 or 1
    )


OPTIONS = Options()
