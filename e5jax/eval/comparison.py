"""Compares a model with other systems: their scores by task flow in, one `Results` flows out."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from e5jax.eval.contamination import Manifest, training_data
from e5jax.eval.systems import System
from e5jax.report.results import Difference, Results, Task

RESAMPLES = 10_000
_MAX_DRAWS = 2_000_000  # at once


def compare(
    systems: Sequence[System],
    model: str,
    tasks: Mapping[str, Task],
    *,
    manifests: Iterable[Manifest] = (),
    settings: Mapping[str, str | None],
    notes: Sequence[str] = (),
    price: float | None = None,
) -> Results:
    """Collects scores, differences by query, and remarks. `model` names one of the systems."""
    manifests = list(manifests)
    own = next(system for system in systems if system.name == model)
    details = {}
    for name, task in tasks.items():
        known = training_data(name, task, manifests) if manifests else ""
        details[name] = task._replace(training_data=known)
        if run := own.runs.get(name):
            details[name] = details[name]._replace(seconds=run.seconds, revision=run.revision)
    differences = {name: _differences(own, systems, name, task) for name, task in tasks.items()}
    data_notes = [f"{name}: {note}" for name, task in tasks.items() for note in task.notes]
    left_out = [
        f"{task}: {system.name} left out: {reason}"
        for system in systems
        for task, reason in system.left_out.items()
    ]
    return Results(
        model=model,
        tasks=details,
        scores={
            system.name: {task: run.metrics for task, run in system.runs.items() if task in tasks}
            for system in systems
        },
        differences={name: by_system for name, by_system in differences.items() if by_system},
        settings=settings,
        notes=[*data_notes, *left_out, *notes],
        price=price,
    )


def _differences(
    own: System, systems: Sequence[System], name: str, task: Task
) -> dict[str, Difference]:
    ours = own.queries(name, task)
    results = {
        system.name: difference(ours, system.queries(name, task))
        for system in systems
        if system is not own
    }
    return {system: result for system, result in results.items() if result}


def difference(
    ours: Mapping[str, float], theirs: Mapping[str, float], seed: int = 0
) -> Difference | None:
    """The paired bootstrap over queries (Efron; Sakai, SIGIR 2006); None for other queries."""
    if not ours or ours.keys() != theirs.keys():
        return None
    differences = np.array([ours[query] - theirs[query] for query in sorted(ours)])
    random, count = np.random.default_rng(seed), len(differences)
    part = max(1, _MAX_DRAWS // count)
    sizes = [min(part, RESAMPLES - start) for start in range(0, RESAMPLES, part)]
    draws = (random.integers(0, count, (size, count)) for size in sizes)
    means = np.concatenate([differences[drawn].mean(axis=1) for drawn in draws])
    low, high = np.quantile(means, [0.025, 0.975])
    # Both tails; the sample itself is one of the resamples, so that p is never 0.
    tail = min(np.sum(means <= 0), np.sum(means >= 0))
    p = min(1.0, 2 * (float(tail) + 1) / (RESAMPLES + 1))
    return Difference(count, float(differences.mean()), float(low), float(high), p)
