"""The files of a run: examples ready for training, and everything that says where they come from."""

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from e5jax.synth import relabel
from e5jax.synth.collect import Counts
from e5jax.synth.collection import Collection
from e5jax.synth.details import parse_entry
from e5jax.synth.families import BY_NAME
from e5jax.synth.report import report
from e5jax.synth.stats import Tally, stats
from e5jax.workdir.directory import atomic_output, write_text


class Output(NamedTuple):
    """Paths below one run's directory."""

    root: Path

    @property
    def config(self) -> Path:
        return self.root / "config.json"

    @property
    def journal(self) -> Path:
        """Every reply that was paid for."""
        return self.root / "journal.jsonl"

    @property
    def examples(self) -> Path:
        """One JSONL of `records.Example` a family, so that `e5jax mine` can be given those without hard negatives."""
        return self.root / "examples"

    @property
    def details(self) -> Path:
        return self.root / "details.jsonl"

    @property
    def tasks(self) -> Path:
        return self.root / "tasks.jsonl"

    @property
    def rejects(self) -> Path:
        return self.root / "rejects.jsonl"

    @property
    def stats(self) -> Path:
        return self.root / "stats.json"

    @property
    def report(self) -> Path:
        return self.root / "report.html"


def write(output: Output, run: Collection, counts: dict[str, Counts]) -> dict[str, Any]:
    """Writes all files, each whole or not at all, and returns the statistics."""
    tally = Tally()
    with atomic_output(output.examples) as folder, _lines(output.details) as details:
        folder.mkdir()
        for name in (*BY_NAME, relabel.NAME):
            ids = sorted(slot for slot in run.shelf if slot.partition("/")[0] == name)
            if not ids:
                continue
            with (folder / f"{name}.jsonl").open("w", encoding="utf-8", newline="\n") as file:
                for slot in ids:
                    entry = parse_entry(run.shelf.get(slot))
                    file.write(entry.example.to_json() + "\n")
                    details(entry.details.to_json())
                    tally.add(entry)
    with _lines(output.tasks) as tasks:
        for task in run.tasks.kept:
            tasks(task.to_json())
    with _lines(output.rejects) as rejects:
        for rejection in sorted(run.rejected):
            rejects(json.dumps(rejection._asdict(), ensure_ascii=False))
    found = stats(run, counts, tally)
    write_text(output.stats, json.dumps(found, indent=2, ensure_ascii=False) + "\n")
    write_text(output.report, report(found, tally.samples()))
    return found


@contextlib.contextmanager
def _lines(path: Path) -> Iterator[Callable[[str], object]]:
    with (
        atomic_output(path) as temporary,
        temporary.open("w", encoding="utf-8", newline="\n") as file,
    ):
        yield _line_writer(file)


def _line_writer(file: TextIO) -> Callable[[str], object]:
    return lambda line: file.write(line + "\n")
