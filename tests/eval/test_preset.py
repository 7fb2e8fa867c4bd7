import re
from pathlib import Path

import mteb
import pytest
from mteb.abstasks.aggregated_task import AbsTaskAggregate
from mteb.mocks.mock_tasks import MockRetrievalTask

from e5jax.eval.preset import instructions, mteb_instruction, official_instruction

DOCS = Path(__file__).parents[2] / "docs" / "evaluation.md"
BENCHMARKS = (
    "MTEB(eng, v1)",
    "MTEB(eng, v2)",
    "MTEB(Multilingual, v1)",
    "MTEB(Multilingual, v2)",
    "NanoBEIR",
    "MTEB(cmn, v1)",
)
TABLE = instructions()


def benchmark_tasks() -> set[str]:
    """All tasks of the benchmarks, with the parts of aggregates in their place."""
    tasks = [task for name in BENCHMARKS for task in mteb.get_benchmark(name).tasks]
    parts = [task.tasks if isinstance(task, AbsTaskAggregate) else [task] for task in tasks]
    return {task.metadata.name for part in parts for task in part}


def test_every_task_of_every_benchmark_has_a_line():
    assert not sorted(benchmark_tasks() - set(TABLE))
    assert len(benchmark_tasks()) > 200


def test_every_line_is_of_a_task_that_mteb_has():
    for name in TABLE:
        mteb.get_task(name)  # a KeyError names it


def documented() -> set[tuple[str, str, str]]:
    """(task, ours, mteb's) of the table of differences."""
    rows = re.findall(
        r"^\| `([^`]+)` \| ([^|]+) \| ([^|]+) \|$", DOCS.read_text(encoding="utf-8"), re.MULTILINE
    )
    return {(task, ours.strip(), theirs.strip()) for task, ours, theirs in rows}


def test_differences_from_the_metadata_of_mteb_are_those_that_the_docs_list():
    metadata = {name: mteb.get_task(name).metadata for name in TABLE}
    differences = {
        (name, line.instruction, mteb_instruction(metadata[name]))
        for name, line in TABLE.items()
        if line.instruction != mteb_instruction(metadata[name])
    }
    assert differences == documented()
    assert len(differences) > 12  # CQADupstack's twelve sets at the least


def test_a_version_of_a_task_has_its_instruction():
    for line in TABLE.values():
        if line.source in TABLE:
            assert line.instruction == TABLE[line.source].instruction, line
        else:
            assert line.source in ("paper", "unilm", "mteb", "mteb default"), line


@pytest.mark.parametrize(
    ("task", "instruction"),
    [
        (
            "CQADupstackTexRetrieval",
            "Given a question, retrieve detailed question descriptions from Stackexchange "
            "that are duplicates to the given question",
        ),
        (
            "SummEval",
            "Given a news summary, retrieve other semantically similar summaries",
        ),  # no full stop
        ("STS22", "Retrieve semantically similar text."),
        (
            "MIRACLRetrievalHardNegatives",
            "Given a question, retrieve Wikipedia passages that answer the question",
        ),
        (
            "T2Reranking",
            "Given a Chinese search query, retrieve web passages that answer the question",
        ),
    ],
)
def test_instructions_of_the_paper(task, instruction):
    assert official_instruction(mteb.get_task(task).metadata) == instruction


def test_a_local_folder_keeps_its_instruction_whatever_it_is_called():
    dataset = {"path": "/data/SciFact", "revision": "1"}
    local = MockRetrievalTask.metadata.model_copy(
        update={"name": "SciFact", "dataset": dataset, "prompt": {"query": "its own"}}
    )
    assert official_instruction(local) == "its own"
