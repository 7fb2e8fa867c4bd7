"""What mining did, in numbers: `report.json`, and a table to read."""

import dataclasses
from collections import Counter
from collections.abc import Iterator

import numpy as np
from jaxtyping import Float, Int

from e5jax.mine.rules import Choice, Scored
from e5jax.mine.settings import Mining
from e5jax.mine.teacher import Teacher

EDGES = np.linspace(
    -1, 1, 41
)  # of unit vectors' inner products, with room for rounding at both ends
KINDS = ("positives", "candidates", "negatives")
SHOWN = 4  # bins of a line of the table


class Histograms:
    """Of the scores that one scorer gave; those beyond the edges are counted in the bins at the ends."""

    def __init__(self, edges: Float[np.ndarray, " e"]) -> None:
        self._edges, self._counts = (
            edges,
            {kind: np.zeros(len(edges) - 1, np.int64) for kind in KINDS},
        )

    def add(self, choice: Choice, scored: Scored) -> None:
        """Counts one example."""
        scores = (
            scored.positives,
            scored.candidates[choice.candidates],
            scored.candidates[choice.chosen],
        )
        for kind, some in zip(KINDS, scores, strict=True):
            within = np.clip(some[np.isfinite(some)], self._edges[0], self._edges[-1])
            self._counts[kind] += np.histogram(within, self._edges)[0]

    def report(self) -> dict[str, list]:
        """Edges and counts."""
        return {
            "edges": self._edges.round(6).tolist(),
            **{kind: counts.tolist() for kind, counts in self._counts.items()},
        }


class Tally:
    """Counts over all examples."""

    def __init__(self, teacher: Teacher | None = None) -> None:
        self._dropped: Counter[str] = Counter()
        self._found: Counter[int] = Counter()  # examples by number of negatives
        self._candidates = 0
        self._scores = {"model": Histograms(EDGES)}
        if teacher:
            # A teacher of one score has a bin of width 1.
            top = teacher.highest if teacher.highest > teacher.lowest else teacher.lowest + 1
            self._scores["teacher"] = Histograms(np.linspace(teacher.lowest, top, len(EDGES)))

    def add(self, choice: Choice, ranking: Scored, taught: Scored | None = None) -> None:
        """Counts one example."""
        self._dropped += choice.dropped
        self._found[len(choice.chosen)] += 1
        self._candidates += int(choice.candidates.sum())
        self._scores["model"].add(choice, ranking)
        if taught:
            self._scores["teacher"].add(choice, taught)

    def report(self, rules: Mining, texts: dict[str, int]) -> dict:
        """All of it. `short` counts the records with fewer negatives than asked for; by the rules they were kept or dropped."""
        examples, short = (
            self._found.total(),
            sum(count for found, count in self._found.items() if found < rules.negatives),
        )
        return {
            "settings": dataclasses.asdict(rules),
            **texts,
            "examples": examples,
            "written": examples - (short if rules.short == "drop" else 0),
            "short": {"examples": short, "action": rules.short},
            "examples_by_negatives": {
                str(number): self._found[number] for number in sorted(self._found)
            },
            "excluded": self._dropped["excluded"],
            "candidates": self._candidates,
            "candidates_dropped": {
                rule: count for rule, count in self._dropped.most_common() if rule != "excluded"
            },
            "negatives": sum(number * count for number, count in self._found.items()),
            "scores": {scorer: histograms.report() for scorer, histograms in self._scores.items()},
        }


def table(report: dict) -> str:
    """The report for a terminal."""
    return "\n".join(
        [
            *_counts(report),
            *(line for scorer in report["scores"].items() for line in _histogram(*scorer)),
        ]
    )


def _counts(report: dict) -> Iterator[str]:
    ranks = f"ranks 1 to {report['settings']['last']:,}"
    yield f"{'corpus':<26}{report['corpus']:>12,}  texts; {report['corpus_duplicates']:,} that came again were left out"
    yield f"{'excluded':<26}{report['excluded']:>12,}  positives of the query, the query itself, the text of its id"
    yield f"{'candidates':<26}{report['candidates']:>12,}  {ranks} of {report['examples']:,} records"
    for rule, count in report["candidates_dropped"].items():
        yield f"  {rule.replace('_', ' '):<24}{-count:>12,}  {count / report['candidates']:.1%}"
    yield f"{'negatives':<26}{report['negatives']:>12,}"


def _histogram(scorer: str, scores: dict[str, list]) -> Iterator[str]:
    """Lines from the lowest to the highest score that occurs."""
    merged = {
        kind: np.add.reduceat(
            np.array(scores[kind], np.int64), np.arange(0, len(scores[kind]), SHOWN)
        )
        for kind in KINDS
    }
    edges = scores["edges"][::SHOWN]
    occupied: Int[np.ndarray, " n"] = np.flatnonzero(sum(merged.values()))
    yield ""
    yield f"{f'score of the {scorer}':<26}{''.join(f'{kind:>12}' for kind in KINDS)}"
    for line in range(occupied[0], occupied[-1] + 1) if occupied.size else ():
        between = f"{edges[line]:.4g} to {edges[line + 1]:.4g}"
        yield f"  {between:<24}{''.join(f'{merged[kind][line]:>12,}' for kind in KINDS)}"
