import json

import mteb.mocks
import pytest

from e5jax.cli import main
from e5jax.datasets.clean import clean
from e5jax.datasets.contamination import evaluation_texts
from e5jax.errors import ConfigError
from e5jax.eval.comparison import compare, find_system
from e5jax.eval.contamination import read_manifests, training_data, write_texts
from e5jax.report.results import Task
from e5jax.workdir.outputs import LIST
from tests.beir import write_beir
from tests.eval.mteb_results import SETTINGS

FLAT = [  # the columns of their data that hold texts
    (mteb.mocks.MockSTSTask, ("sentence1", "sentence2")),
    (mteb.mocks.MockBitextMiningTask, ("sentence1", "sentence2")),
    (mteb.mocks.MockClusteringTask, ("sentences",)),
    (mteb.mocks.MockSummarizationTask, ("human_summaries", "machine_summaries")),
    (
        mteb.mocks.MockMultilabelClassification,
        ("text",),
    ),  # also gives a model texts to train a classifier on
]


def written(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def strings(value):
    return {value} if isinstance(value, str) else set().union(*map(strings, value))


@pytest.mark.parametrize(("task", "columns"), FLAT, ids=[task.__name__ for task, _ in FLAT])
@pytest.mark.filterwarnings(
    "ignore"
)  # scores of vectors that mean nothing, some of them not defined
def test_the_texts_of_a_task_s_columns_are_written_once(task, columns, tmp_path):
    instance = task()
    counts = write_texts([instance], tmp_path / "texts.jsonl")
    rows = written(tmp_path / "texts.jsonl")
    instance.load_data()
    assert {row["text"] for row in rows} == strings(
        [instance.dataset["test"][column][:] for column in columns]
    )
    assert (
        len({row["text"] for row in rows})
        == len({row["id"] for row in rows})
        == len(rows)
        == counts[instance.metadata.name]
    )
    assert {row["kind"] for row in rows} == {"text"}


@pytest.mark.filterwarnings("ignore")
def test_queries_come_without_the_task_s_instruction_and_documents_with_their_title(tmp_path):
    instance = mteb.mocks.MockInstructionRetrieval()
    write_texts([instance], tmp_path / "texts.jsonl")
    instance.load_data()
    split = instance.dataset["default"]["test"]
    rows = {
        kind: [row for row in written(tmp_path / "texts.jsonl") if row["kind"] == kind]
        for kind in ("query", "document")
    }
    assert {row["text"] for row in rows["query"]} == set(split["queries"]["text"])
    assert {row["text"] for row in rows["document"]} == {
        f"{row['title']} {row['text']}" for row in split["corpus"]
    }
    assert rows["query"][0]["id"].startswith("MockInstructionRetrieval/default/test/query/")


def test_the_command_writes_texts_that_cleaning_reads(tmp_path, capsys):
    folder = write_beir(tmp_path / "five", {"d1": "b", "d2": "c é"}, {"q1": "who"}, ["q1 d1 1"])
    corpus = folder / "corpus.jsonl"
    corpus.write_text(corpus.read_text().replace('"text": "b"', '"title": "A", "text": "b"'))
    assert main(["eval", "--texts", f"--tasks={folder}", f"--output={tmp_path / 'out'}"]) == 0
    assert "           3  five\n" in capsys.readouterr().out
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [LIST, "texts.jsonl"]
    assert {text for _, text in evaluation_texts([tmp_path / "out/texts.jsonl"])} == {
        "A b",
        "c é",
        "who",
    }
    assert [
        text for _, text in evaluation_texts([tmp_path / "out/texts.jsonl"], documents=False)
    ] == ["who"]


def test_a_model_and_texts_are_not_asked_for_together(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["eval", "--texts", "--model=x", "--tasks=y", f"--output={tmp_path}"])
    assert "--model: not allowed with argument --texts" in capsys.readouterr().err


# --- training data -----------------------------------------------------------------------------


def test_remarks_on_training_data_are_those_of_the_manifests(tmp_path):
    report = {
        "examples": 9,
        "kept": 7,
        "rejected": {},
        "removed": {},
        "evaluation": {"ArguAna": {"texts": 5, "removed": 1_234}},
    }
    for name, file, values in [
        ("cleaned", "clean.json", report),
        ("hotpotqa", "manifest.json", {"set": "hotpotqa"}),
    ]:
        (tmp_path / name).mkdir()
        (tmp_path / name / file).write_text(json.dumps(values))
    manifests = read_manifests([tmp_path / "cleaned", tmp_path / "hotpotqa"])
    names = ["ArguAna", "HotpotQA", "NanoHotpotQARetrieval", "NQ"]
    tasks = dict.fromkeys(names, Task("Retrieval", ("test",), ("default",)))
    systems = [find_system("paper", tasks)]
    results = compare(systems, "paper", tasks, manifests=manifests, settings=SETTINGS)
    assert {name: task.training_data for name, task in results.tasks.items()} == {
        "ArguAna": "cleaned, 1,234 records left out",
        "HotpotQA": "trained on hotpotqa",
        "NanoHotpotQARetrieval": "trained on hotpotqa",
        "NQ": "not checked",
    }
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match=r"no clean\.json and no manifest\.json"):
        read_manifests([tmp_path / "empty"])


@pytest.mark.parametrize("evaluation", [{"ArguAna": {"texts": 5}}, {"ArguAna": 5}, ["ArguAna"]])
def test_a_cleaning_report_without_removed_records_of_a_task_is_refused(evaluation, tmp_path):
    report = {"examples": 9, "kept": 7, "rejected": {}, "removed": {}, "evaluation": evaluation}
    (tmp_path / "clean.json").write_text(json.dumps(report))
    with pytest.raises(ConfigError, match=r"clean\.json: not a report .* it lacks `removed` of a"):
        list(read_manifests([tmp_path]))


def test_a_cleaning_counts_for_the_splits_and_subsets_that_it_looked_for(tmp_path):
    reviews = "AmazonReviewsClassification"
    texts = [
        (f"{reviews}/{subset}/test/text/1", f"a review of {subset}") for subset in ("en", "fr")
    ]
    (tmp_path / "train.jsonl").write_text(
        '{"schema": 1, "id": "1", "query": "a", "positives": ["b"]}\n'
    )
    clean([tmp_path / "train.jsonl"], tmp_path / "cleaned", texts)
    task = Task("Classification", ("test",), ("en", "de"))
    remark = training_data(reviews, task, read_manifests([tmp_path / "cleaned"]))
    assert remark == "cleaned, 0 records left out; not checked for de/test"
