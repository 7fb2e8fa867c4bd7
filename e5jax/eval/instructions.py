"""The instruction of each task: `instructions.tsv`, of the official evaluation where it names the task, or else mteb's.

Its `source` says where a line is from: `paper` (arXiv 2401.00368, table 15, as microsoft/unilm's `e5/utils.py` spells it),
`unilm` (tasks that only that file names), the name of the task that this one is a version of, `mteb` (the task's metadata), or
`mteb default` (what mteb says for all tasks of the type).
"""

import csv
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from mteb.abstasks.abstask import get_abstask_prompt
from mteb.abstasks.task_metadata import TaskMetadata

TABLE = Path(__file__).with_name("instructions.tsv")


class Instruction(NamedTuple):
    """One line of the table."""

    task: str
    source: str
    instruction: str


@cache
def instructions() -> MappingProxyType[str, Instruction]:
    """The table by task."""
    with TABLE.open(encoding="utf-8", newline="") as file:
        header, *rows = csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
    assert tuple(header) == Instruction._fields
    return MappingProxyType({row[0]: Instruction(*row) for row in rows})


def official(task: TaskMetadata) -> str:
    """Of the table; of mteb for tasks that it lacks, and of its own `task.json` for a local folder, whatever it is called."""
    line = None if is_local(task) else instructions().get(task.name)
    return line.instruction if line else packaged(task)


def packaged(task: TaskMetadata) -> str:
    """What mteb says of the queries of this task, possibly nothing, or of all tasks of its type."""
    if task.prompt is None:
        return get_abstask_prompt(task.name)
    return task.prompt.get("query", "") if isinstance(task.prompt, dict) else task.prompt


def is_local(task: TaskMetadata) -> bool:
    """True for a folder in BEIR layout: paths on the hub are never absolute."""
    return Path(task.dataset["path"]).is_absolute()
