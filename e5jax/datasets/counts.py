"""How many examples a cleaning read, kept and removed, by source, language and reason."""

from collections import Counter, defaultdict
from collections.abc import Mapping
from typing import Any

from e5jax.data.records import Example
from e5jax.datasets.example_texts import Removed
from e5jax.datasets.readers.result import Rejected

UNKNOWN = "unknown"  # in place of an empty source or language


class Tally:
    """Counts, until `report` gives them as JSON."""

    def __init__(self) -> None:
        self._read = Counter[str]()
        self._kept: defaultdict[str, Counter[str]] = defaultdict(
            Counter
        )  # by source, then language
        self._removed: defaultdict[str, Counter[tuple[str, str, str]]] = defaultdict(
            Counter
        )  # by source, then why
        self._rejected = Counter[str]()

    def read(self, example: Example) -> None:
        self._read[example.source or UNKNOWN] += 1

    def kept(self, example: Example) -> None:
        self._kept[example.source or UNKNOWN][example.language or UNKNOWN] += 1

    def removed(self, one: Removed) -> None:
        self._removed[one.source or UNKNOWN][one.cause, one.reason, one.part] += 1

    def rejected(self, one: Rejected) -> None:
        self._rejected[one.kind] += 1

    @property
    def examples(self) -> int:
        """How many were read."""
        return self._read.total()

    @property
    def rejections(self) -> int:
        """How many lines were no examples."""
        return self._rejected.total()

    def report(self) -> dict[str, Any]:
        """Totals, then the same for each source; what was removed as cause -> reason -> part -> number."""
        return {
            "examples": self.examples,
            "kept": sum(kept.total() for kept in self._kept.values()),
            "rejected": dict(self._rejected.most_common()),
            "removed": _nested(sum(self._removed.values(), Counter())),
            "sources": {
                source: {
                    "examples": count,
                    "kept": self._kept[source].total(),
                    "languages": dict(self._kept[source].most_common()),
                    "removed": _nested(self._removed[source]),
                }
                for source, count in self._read.most_common()
            },
        }


def _nested(counts: Counter[tuple[str, str, str]]) -> dict[str, dict[str, dict[str, int]]]:
    made: dict[str, dict[str, dict[str, int]]] = {}
    for (cause, reason, part), count in counts.most_common():
        made.setdefault(cause, {}).setdefault(reason, {})[part] = count
    return made


def flat(removed: Mapping[str, Mapping[str, Mapping[str, int]]]) -> Counter[tuple[str, str, str]]:
    """Numbers by cause, reason and part, from what a report says was removed."""
    return Counter(
        {
            (cause, why, part): n
            for cause, whys in removed.items()
            for why, parts in whys.items()
            for part, n in parts.items()
        }
    )
