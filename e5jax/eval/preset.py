"""How a task is put to a model: which texts carry an instruction, which vectors are unit vectors, how many tokens are read.

`paper` is the official evaluation of E5-Mistral (arXiv 2401.00368; microsoft/unilm, `e5/mteb_*_eval.py`), `mteb-v2` what the
package mteb does with the published model. docs/evaluation.md lists where they differ.
"""

from collections.abc import Callable
from types import MappingProxyType
from typing import Literal, NamedTuple

from mteb.abstasks.task_metadata import TaskMetadata
from mteb.types import PromptType

from e5jax.eval.instructions import official, packaged

PresetName = Literal["paper", "mteb-v2"]
SEARCHED = (
    "Retrieval",
    "InstructionRetrieval",
)  # documents of these types are indexed once for all tasks: bare


class Preset(NamedTuple):
    """One protocol."""

    name: PresetName
    limit: int | None  # tokens read of a text; None: as many as the folder says
    instruction: Callable[[TaskMetadata], str]
    bare: Callable[
        [TaskMetadata], bool
    ]  # whether texts that a task calls documents have no instruction
    unit: Callable[
        [TaskMetadata], bool | None
    ]  # whether vectors get unit length; None: as the folder's own modules say
    cosine: bool  # scores are cosines, whatever the folder compares its vectors by

    def given(
        self, task: TaskMetadata, prompt_type: PromptType | None, instead: str | None = None
    ) -> str:
        """The instruction of a text, empty for none; `instead` of the task's own."""
        if prompt_type == PromptType.document and self.bare(task):
            return ""
        return self.instruction(task) if instead is None else instead


PRESETS = MappingProxyType(
    {
        "paper": Preset(
            "paper",
            limit=512,
            instruction=official,
            bare=lambda task: task.type in SEARCHED,
            unit=lambda task: task.type != "Classification",
            cosine=True,
        ),
        "mteb-v2": Preset(
            "mteb-v2", None, packaged, bare=lambda _: True, unit=lambda _: None, cosine=False
        ),
    }
)
