"""What the score of a task is a mean over: its splits and subsets, which mteb's benchmarks narrow down for some tasks."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from mteb.abstasks.abstask import AbsTask
from mteb.abstasks.aggregated_task import AbsTaskAggregate

from e5jax.eval.retrieval import LocalRetrieval

DEFAULT = "default"  # mteb's name of the only subset of a task
SHOWN = 8  # subsets in a label


class TaskScope(NamedTuple):
    """A task of an evaluation: every split is scored on every subset."""

    category: str
    splits: tuple[str, ...]
    subsets: tuple[str, ...]
    notes: tuple[str, ...] = ()  # what its data lack

    @property
    def label(self) -> str:
        """`test`, `test/en`, `validation,test/en,de`; of many subsets the first few and their number."""
        splits = ",".join(self.splits)
        if self.subsets == (DEFAULT,):
            return splits
        more = f",… ({len(self.subsets)})" if len(self.subsets) > SHOWN else ""
        return f"{splits}/{','.join(self.subsets[:SHOWN])}{more}"

    def as_json(self) -> dict[str, Any]:
        """For `results.json`."""
        return {**self._asdict(), "label": self.label}

    def same_data(self, other: "TaskScope") -> bool:
        """Whether scores of the two are means over the same splits and subsets, in whatever order."""
        return (set(self.splits), set(self.subsets)) == (set(other.splits), set(other.subsets))

    def entries(
        self, scores: Mapping[str, Sequence[Mapping[str, Any]]]
    ) -> list[Mapping[str, Any]] | None:
        """The scores that mteb has of these splits and subsets, from all those of a result; None where one of them is missing."""
        by_place = {
            (split, entry["hf_subset"]): entry
            for split, entries in scores.items()
            for entry in entries
        }
        places = [(split, subset) for split in self.splits for subset in self.subsets]
        return [by_place[place] for place in places] if by_place.keys() >= set(places) else None

    def queries(self, scores: Mapping[str, float]) -> dict[str, float]:
        """Of scores by `split/subset/query` those of these splits and subsets."""
        places = tuple(f"{split}/{subset}/" for split in self.splits for subset in self.subsets)
        return {query: score for query, score in scores.items() if query.startswith(places)}


def scope_of(task: AbsTask) -> TaskScope:
    """The splits and subsets of a task as it was selected. The result of a task made of others has one subset, their mean."""
    is_aggregate = isinstance(task, AbsTaskAggregate)
    splits = task.metadata.eval_splits if is_aggregate else task.eval_splits
    subsets = (DEFAULT,) if is_aggregate else tuple(task.hf_subsets)
    notes = task.notes if isinstance(task, LocalRetrieval) else ()
    return TaskScope(task.metadata.type, tuple(splits), subsets, notes)
