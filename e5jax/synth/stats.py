"""What came of a run, in numbers: `stats.json`, and what the report is made of."""

import hashlib
from array import array
from collections import Counter, defaultdict
from typing import Any

import numpy as np

from e5jax.synth.collect import Counts
from e5jax.synth.collection import Collection
from e5jax.synth.details import Entry

SAMPLES = 3  # of each family
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
PARTS = ("query", "positive", "negative")


class Tally:
    """Counts over the examples that are kept, and a few of them, chosen by a hash of their ids."""

    def __init__(self) -> None:
        self.languages: Counter[str] = Counter()
        self.pairs: Counter[str] = Counter()
        self.models: Counter[str] = Counter()
        self.attempts: Counter[int] = Counter()
        self.identified = 0
        self.examples = 0
        self._words: defaultdict[tuple[str, str], array] = defaultdict(lambda: array("f"))
        self._samples: defaultdict[str, list[tuple[bytes, Entry]]] = defaultdict(list)

    def add(self, entry: Entry) -> None:
        """Counts one."""
        details = entry.details
        self.examples += 1
        self.languages[details.language or "?"] += 1
        if details.target:
            self.pairs[f"{details.language}-{details.target}"] += 1
            self.languages[details.target] += 1
        self.models[details.model] += 1
        self.attempts[details.attempt + 1] += 1
        self.identified += details.identified
        for name, words in details.words.items():
            self._words[details.family, name].append(words)
        kept = self._samples[details.family]
        kept.append((hashlib.blake2b(details.id.encode(), digest_size=8).digest(), entry))
        kept.sort(key=lambda pair: pair[0])
        del kept[SAMPLES:]

    def samples(self) -> list[Entry]:
        """A few examples of each family."""
        return [entry for kept in self._samples.values() for _, entry in kept]

    def lengths(self) -> dict[str, dict[str, list[float]]]:
        """Quantiles of the words of queries, positives and negatives, by family."""
        found: defaultdict[str, dict[str, list[float]]] = defaultdict(dict)
        for (family, part), words in sorted(self._words.items()):
            found[family][part] = (
                np.quantile(np.frombuffer(words, np.float32), QUANTILES).round(1).tolist()
            )
        return dict(found)


def stats(run: Collection, counts: dict[str, Counts], tally: Tally) -> dict[str, Any]:
    """Ready for JSON. Holds no time, so that the same replies give the same bytes."""
    reasons: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for rejection in run.rejected:
        reasons[_kind(rejection.id)][rejection.reason] += 1
    asked, kept, dropped, left = (
        (sum(column) for column in zip(*counts.values(), strict=True)) if counts else (0, 0, 0, 0)
    )
    return {
        "complete": not run.halt,
        "halted": str(run.halt.why) if run.halt else None,
        "examples": {"asked": asked, "kept": kept, "dropped": dropped, "open": left},
        "families": {
            name: {**count._asdict(), "tasks": len(run.tasks.of(name))}
            for name, count in counts.items()
        },
        "dropped_for": dict(sorted(Counter(run.dropped.values()).items())),
        "rejected": {kind: dict(sorted(found.items())) for kind, found in sorted(reasons.items())},
        "languages": _ranked(tally.languages),
        "pairs": _ranked(tally.pairs),
        "language_identified": tally.identified,
        "language_unchecked": tally.examples - tally.identified,
        "models": _ranked(tally.models),
        "attempts": {str(attempt): tally.attempts[attempt] for attempt in sorted(tally.attempts)},
        "word_quantiles": list(QUANTILES),
        "words": tally.lengths(),
        "requests": run.session.totals(),
    }


def _kind(identity: str) -> str:
    """`short-long`, or `short-long tasks` for what a brainstorming reply brought."""
    family, _, rest = identity.partition("/")
    return f"{family} tasks" if rest.endswith("brainstorm") else family


def _ranked(counts: Counter[str]) -> dict[str, int]:
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))
