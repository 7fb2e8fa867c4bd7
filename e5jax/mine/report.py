"""What mining did, in numbers: `report.json`."""

import dataclasses
from collections import Counter

import numpy as np
from jaxtyping import Float

from e5jax.mine.rules import Choice
from e5jax.mine.settings import Mining

EDGES = np.linspace(-1, 1, 41)  # of unit vectors' inner products, with room for rounding at both ends


class Tally:
    """Counts over all examples."""

    def __init__(self) -> None:
        self.dropped: Counter[str] = Counter()
        self.found: Counter[int] = Counter()  # examples by number of negatives
        self.histograms = {name: np.zeros(len(EDGES) - 1, np.int64) for name in ("positives", "candidates", "negatives")}

    def add(self, choice: Choice, positives: Float[np.ndarray, " p"], candidates: Float[np.ndarray, " k"]) -> None:
        """Counts one example."""
        self.dropped += choice.dropped
        self.found[len(choice.chosen)] += 1
        for name, scores in [("positives", positives), ("candidates", candidates), ("negatives", candidates[choice.chosen])]:
            known = np.clip(scores[np.isfinite(scores)], -1, 1)
            self.histograms[name] += np.histogram(known, EDGES)[0]

    def report(self, rules: Mining, texts: dict[str, int]) -> dict:
        """All of it. `short` counts the records with fewer negatives than asked for; by the rules they were kept or dropped."""
        examples, short = self.found.total(), sum(count for found, count in self.found.items() if found < rules.negatives)
        return {
            "settings": dataclasses.asdict(rules),
            **texts,
            "examples": examples,
            "written": examples - (short if rules.short == "drop" else 0),
            "short": {"examples": short, "action": rules.short},
            "examples_by_negatives": {str(number): self.found[number] for number in sorted(self.found)},
            "candidates_dropped": dict(self.dropped.most_common()),
            "score_edges": EDGES.round(6).tolist(),
            "scores": {name: counts.tolist() for name, counts in self.histograms.items()},
        }
