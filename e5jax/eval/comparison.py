"""Systems side by side: what `results.json`, `results.md` and `report.html` say, each number worked out once.

Results of one system and of those beside it flow in, one `Board` of plain values flows out.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from e5jax.eval.averages import Mean, categories, mean, shared
from e5jax.eval.contamination import Manifest, flag
from e5jax.eval.results import Results, Score
from e5jax.eval.scope import TaskScope
from e5jax.eval.significance import Difference, difference

ALL = "all tasks"


class Board(NamedTuple):
    """Everything on the page. The first system is the one that was evaluated; the others stand beside it."""

    systems: tuple[Results, ...]
    scope: Mapping[str, TaskScope]  # by task: what was meant to be evaluated
    means: Mapping[str, Mapping[str, Mean]]  # by category and `ALL`, then by system
    together: Mapping[str, Mean]  # over the tasks that all systems have, by system
    flags: Mapping[str, str]  # by task
    differences: Mapping[str, Mapping[str, Difference]]  # by task, then by the system beside
    settings: Mapping[str, str | None]
    price: float | None  # money an hour

    @property
    def hours(self) -> float:
        """Of evaluation, over the tasks whose time is known."""
        own = self.systems[0].tasks
        return sum(own[task].seconds or 0.0 for task in self.scope if task in own) / 3_600

    @property
    def notes(self) -> list[str]:
        """What the data of tasks lack, and which scores of others are not of the same splits and subsets."""
        data = [f"{task}: {note}" for task, scope in self.scope.items() for note in scope.notes]
        left_out = [
            (task, system.name, why)
            for system in self.systems
            for task, why in system.left_out.items()
        ]
        return data + [f"{task}: {name} left out: {why}" for task, name, why in left_out]

    def score(self, system: Results, task: str) -> Score | None:
        """None for a task that it lacks."""
        return system.tasks.get(task)

    def as_json(self) -> dict:
        """All of it, for programs: scores from 0 to 1."""
        first = self.systems[0]
        return {
            "settings": dict(self.settings),
            "tasks": {task: self._task(task) for task in self.scope},
            "means": {
                name: {of: found._asdict() for of, found in by.items()}
                for name, by in self.means.items()
            },
            "shared": {name: found._asdict() for name, found in self.together.items()},
            "hours": self.hours,
            "cost": None if self.price is None else self.hours * self.price,
            "system": first.name,
            "left_out": {
                system.name: dict(system.left_out) for system in self.systems if system.left_out
            },
        }

    def _task(self, task: str) -> dict:
        own = self.systems[0].tasks.get(task)
        return {
            **self.scope[task].as_json(),
            "scores": {
                system.name: system.tasks[task].main
                for system in self.systems
                if task in system.tasks
            },
            "seconds": own.seconds if own else None,
            "revision": own.revision if own else None,
            "training_data": self.flags[task],
            "differences": {
                name: found._asdict() for name, found in self.differences.get(task, {}).items()
            },
        }


def make_board(
    systems: Sequence[Results],
    scope: Mapping[str, TaskScope],
    manifests: Sequence[Manifest],
    settings: Mapping[str, str | None],
    price: float | None,
) -> Board:
    """Works everything out."""
    groups = {**categories({task: of.category for task, of in scope.items()}), ALL: list(scope)}
    first, *beside = systems
    differences = {
        task: {
            other.name: found
            for other in beside
            if (found := difference(first.queries(task, of), other.queries(task, of)))
        }
        for task, of in scope.items()
    }
    common = shared(systems, list(scope))
    return Board(
        systems=tuple(systems),
        scope=dict(scope),
        means={
            name: {system.name: mean(system, tasks) for system in systems}
            for name, tasks in groups.items()
        },
        together={system.name: mean(system, common) for system in systems},
        flags={task: flag(task, of, manifests) for task, of in scope.items()},
        differences={task: found for task, found in differences.items() if found},
        settings=settings,
        price=price,
    )
