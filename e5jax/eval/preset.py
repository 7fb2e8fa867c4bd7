"""Protocols: the instruction of each text, the length of vectors, and the tokens read of a text.

`paper` is the official evaluation of E5-Mistral (arXiv 2401.00368; microsoft/unilm,
`e5/mteb_*_eval.py`); `mteb-v2` is what the package mteb does with the published model.
docs/evaluation.md lists the differences.

`instructions.tsv` has the official instruction of each task. Its column `source` is `paper`
(table 15, spelled as in unilm's `e5/utils.py`), `unilm` (tasks that only that file names), the name
of the task that this one is a version of, `mteb` (the task's metadata), or `mteb default` (what
mteb uses for all tasks of the type).
"""

import csv
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from mteb.abstasks.abstask import get_abstask_prompt
from mteb.abstasks.task_metadata import TaskMetadata
from mteb.types import PromptType

TABLE = Path(__file__).with_name("instructions.tsv")
# Documents of these types have no instruction: one index serves all tasks.
_INDEXED = ("Retrieval", "InstructionRetrieval")


class Preset(NamedTuple):
    """A protocol."""

    limit: int | None  # tokens read of a text; None: the folder's limit
    task_instruction: Callable[[TaskMetadata], str]
    bare_documents: Callable[[TaskMetadata], bool]  # whether documents have no instruction
    # Whether vectors are normalised; None: as the folder's modules do.
    normalises: Callable[[TaskMetadata], bool | None]
    cosine: bool  # scores are cosines, whatever similarity the folder names

    def instruction(
        self, task: TaskMetadata, prompt_type: PromptType | None, override: str | None = None
    ) -> str:
        """The instruction of a text, empty for none. `override` replaces the task's own."""
        if prompt_type == PromptType.document and self.bare_documents(task):
            return ""
        return self.task_instruction(task) if override is None else override


class Instruction(NamedTuple):
    """A line of `instructions.tsv`."""

    task: str
    source: str
    instruction: str


@cache
def instructions() -> MappingProxyType[str, Instruction]:
    """The lines of `instructions.tsv` by task."""
    with TABLE.open(encoding="utf-8", newline="") as file:
        header, *rows = csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
    assert tuple(header) == Instruction._fields
    return MappingProxyType({row[0]: Instruction(*row) for row in rows})


def official_instruction(task: TaskMetadata) -> str:
    """The instruction of `instructions.tsv`, or mteb's for tasks that it lacks.

    A local folder keeps the instruction of its `task.json`, whatever its name.
    """
    is_local = Path(task.dataset["path"]).is_absolute()  # paths on the hub never are
    line = None if is_local else instructions().get(task.name)
    return line.instruction if line else mteb_instruction(task)


def mteb_instruction(task: TaskMetadata) -> str:
    """The instruction for queries in the task's metadata, or mteb's default for the type."""
    if task.prompt is None:
        return get_abstask_prompt(task.name)
    return task.prompt.get("query", "") if isinstance(task.prompt, dict) else task.prompt


PRESETS = MappingProxyType(
    {
        "paper": Preset(
            limit=512,
            task_instruction=official_instruction,
            bare_documents=lambda task: task.type in _INDEXED,
            normalises=lambda task: task.type != "Classification",
            cosine=True,
        ),
        "mteb-v2": Preset(
            limit=None,
            task_instruction=mteb_instruction,
            bare_documents=lambda _: True,
            normalises=lambda _: None,
            cosine=False,
        ),
    }
)
