"""Tasks: the instructions that examples are made for. Lists from a model or a file flow in, those worth having flow out."""

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple, Self

from e5jax.datasets.minhash import NearIndex, sketch
from e5jax.datasets.normalise import read
from e5jax.errors import ConfigError, RecordError
from e5jax.jsonl import parse_object
from e5jax.synth.families import BY_NAME
from e5jax.synth.prompts import PLACEHOLDER, TASK, examples
from e5jax.synth.reasons import UnfitError
from e5jax.synth.reply import text_of

WORDS = (3, 60)  # fewest and most of a task
AVOIDED_NEAR = 0.5  # Jaccard similarity: stricter than for duplicates, since an evaluation's own instruction must not be learnt


class Task(NamedTuple):
    """One line of tasks.jsonl."""

    family: str
    task: str
    source: str  # id of the request that gave it, or the name of a file

    def to_json(self) -> str:
        return json.dumps(self._asdict(), ensure_ascii=False)


class Tasks:
    """Tasks of all families. Use with `with`: the indexes hold temporary files."""

    def __init__(self, avoid: Iterable[str], near: float):
        self.kept: list[Task] = []
        self._open = ExitStack()
        self._avoid = self._open.enter_context(NearIndex(AVOIDED_NEAR))
        self._known = self._open.enter_context(NearIndex(near))
        for text in avoid:
            self._avoid.add(sketch(read(text)))
        for name, family in BY_NAME.items():
            for text in examples(name) if family.brainstorms else ():
                self._known.add(sketch(read(text)))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def of(self, family: str) -> list[str]:
        """The family's tasks, in the order in which they were added."""
        return [task.task for task in self.kept if task.family == family]

    def add(self, family: str, text: object, source: str) -> None:
        """Keeps a task. Raises UnfitError for one that is malformed, known, or too near to one that is to be avoided."""
        try:
            task = text_of(text, "task")
        except UnfitError as error:
            raise UnfitError("task-form", str(error)) from error
        words = read(task)
        least, most = WORDS
        if (
            len(task) > TASK
            or "\n" in task
            or not least <= words.length <= most
            or PLACEHOLDER.search(task)
        ):
            raise UnfitError(
                "task-form",
                f"one line of {least} to {most} words without placeholders: not {task[:80]!r}",
            )
        found = sketch(words)
        if self._avoid.find(found):
            raise UnfitError(
                "task-avoided", f"{task[:120]!r} resembles an instruction to be avoided"
            )
        if self._known.find(found):
            raise UnfitError("task-duplicate", f"{task[:120]!r} resembles a task that is known")
        self._known.add(found)
        self.kept.append(Task(family, task, source))


def proposed(values: dict[str, Any], most: int) -> list[object]:
    """The list in a brainstorming reply. Raises UnfitError."""
    if set(values) != {"tasks"} or not isinstance(values["tasks"], list):
        raise UnfitError("schema", "not an object with the one key tasks, a list")
    if not values["tasks"]:
        raise UnfitError("empty", "no tasks")
    return values["tasks"][: 2 * most]


def avoided(paths: Sequence[str]) -> list[str]:
    """Instructions of evaluations: those of avoid.txt, and the lines of the user's files."""
    own = files("e5jax.synth").joinpath("avoid.txt").read_text(encoding="utf-8")
    texts = [own, *(_text(path, "config.tasks.avoid") for path in paths)]
    return [
        line
        for text in texts
        for line in text.splitlines()
        if line.strip() and not line.startswith("#")
    ]


def from_files(paths: Sequence[str]) -> Iterator[tuple[str, str, str]]:
    """Family, task and `file:line` of each line. Raises ConfigError `file:line: reason`."""
    for path in paths:
        for number, line in enumerate(_text(path, "config.tasks.files").split("\n"), start=1):
            if line.strip():
                yield *_line(line, f"{path}:{number}"), f"{path}:{number}"


def _line(line: str, where: str) -> tuple[str, str]:
    try:
        values = parse_object(line)
    except RecordError as error:
        raise ConfigError(f"{where}: {error}") from error
    family, task = values.get("family"), values.get("task")
    if not isinstance(family, str) or family not in BY_NAME or not BY_NAME[family].brainstorms:
        names = ", ".join(name for name, row in BY_NAME.items() if row.brainstorms)
        raise ConfigError(f"{where}: family is {family!r}; it must be one of {names}")
    if not isinstance(task, str):
        raise ConfigError(f"{where}: task is {task!r}, not a string")
    return family, task


def _text(path: str, field: str) -> str:
    if not Path(path).is_file():
        raise ConfigError(f"{field}={path}: there is no such file")
    try:
        return Path(path).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{field}={path}: not UTF-8: {error.reason} at byte {error.start}"
        ) from error
