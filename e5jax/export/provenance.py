"""Where a run's training data is from, as far as its files tell: manifests of prepared sets, and reports of cleaning."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from e5jax.config import Training
from e5jax.config.mixture import Dataset
from e5jax.data.batches import fill_defaults
from e5jax.data.sampler import ALONE, mixture_of
from e5jax.data.source import expand
from e5jax.datasets.public_sets import SETS
from e5jax.errors import ConfigError
from e5jax.workdir.directory import Workdir

NOT_RECORDED = "not recorded"
HARVESTED = "docstring and function pairs harvested from installed Python packages"


class Source(NamedTuple):
    """One set of examples: how it was trained on, and what is known of it."""

    name: str
    dataset: Dataset  # with what it leaves to the run
    title: str
    examples: int | None
    licence: str
    published: tuple[str, ...]
    languages: tuple[str, ...] = ()


class Cleaning(NamedTuple):
    """What `e5jax data clean` reported of files that were trained on."""

    file: str
    report: dict[str, Any]


def sources(run: Training, workdir: Workdir | None) -> list[Source]:
    """Every set of a run, in its order. Files that are no longer here are named, and what they held is not recorded."""
    own = str(workdir.data / "train.jsonl") if workdir else ""
    mixture = mixture_of(run, run.data.files or (own,))
    return [
        _source(name, fill_defaults(dataset, run), run)
        for name, dataset in mixture.datasets.items()
    ]


def cleanings(found: list[Source]) -> list[Cleaning]:
    """The reports beside the files, each once."""
    paths = {
        report for source in found for path in _paths(source.dataset) for report in _reports(path)
    }
    return [
        Cleaning(str(path), json.loads(path.read_text(encoding="utf-8"))) for path in sorted(paths)
    ]


def _source(name: str, dataset: Dataset, run: Training) -> Source:
    harvested = name == ALONE and not run.data.files and run.data.harvest is not None
    manifests = [path / "manifest.json" for path in _paths(dataset) if path.is_dir()]
    if manifests:
        said = [json.loads(path.read_text(encoding="utf-8")) for path in manifests]
        return Source(
            name,
            dataset,
            "; ".join(dict.fromkeys(each["title"] for each in said)),
            sum(each["examples"] for each in said),
            "; ".join(dict.fromkeys(each["licence"] for each in said)),
            tuple(dict.fromkeys(file for each in said for file in each["published"])),
            tuple(sorted({code for each in said for code in each["languages"]})),
        )
    if harvested:
        return Source(name, dataset, HARVESTED, None, "those of the packages", ())
    known = next((each for each in SETS if each.name == name), None)
    if known is not None:
        return Source(name, dataset, known.title, None, known.licence, known.files, known.languages)
    return Source(
        name, dataset, ", ".join(Path(file).name for file in dataset.files), None, NOT_RECORDED, ()
    )


def _paths(dataset: Dataset) -> list[Path]:
    try:
        return expand(dataset.files)
    except ConfigError:  # they need not be on the machine that exports
        return []


def _reports(path: Path) -> Iterator[Path]:
    """`e5jax data clean` writes its report beside the folder of the cleaned files."""
    for place in (path.parent / "clean.json", path.parent.parent / "clean.json"):
        if place.is_file():
            yield place
