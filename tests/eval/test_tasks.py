import gzip
import json
import lzma
from pathlib import Path

import pytest
from mteb.abstasks.retrieval import AbsTaskRetrieval

from e5jax.data.beir import FILES
from e5jax.errors import ConfigError
from e5jax.eval.comparison import paper_table
from e5jax.eval.tasks import LocalRetrieval, describe, find_tasks

CORPUS = [
    {"_id": "d1", "title": "", "text": "def one(): ..."},
    {"_id": "d2", "title": "T", "text": "def two(): ..."},
]
QUERIES = [{"_id": "q1", "text": "Returns one."}, {"_id": "q2", "text": "Returns two."}]
RELEVANT = ["query-id\tcorpus-id\tscore", "q1\td1\t1", "q2\td2\t1"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "heldout"
    (root / "qrels").mkdir(parents=True)
    write(root, "corpus.jsonl", [json.dumps(row) for row in CORPUS])
    write(root, "queries.jsonl", [json.dumps(row) for row in QUERIES])
    write(root, "qrels/test.tsv", RELEVANT)
    write(root, "task.json", [json.dumps({"instruction": "find the function"})])
    return root


def write(root: Path, name: str, lines: list[str]) -> None:
    (root / name).write_text("\n".join(lines) + "\n", encoding="utf-8")


def test_a_folder_becomes_the_same_texts_and_relevance(folder):
    task = LocalRetrieval(folder)
    data = task.dataset["default"]["test"]
    assert isinstance(task, AbsTaskRetrieval)
    assert data["corpus"].to_list() == [
        {"id": row["_id"], "title": row["title"], "text": row["text"]} for row in CORPUS
    ]
    assert data["queries"].to_list() == [{"id": row["_id"], "text": row["text"]} for row in QUERIES]
    assert data["relevant_docs"] == {"q1": {"d1": 1}, "q2": {"d2": 1}}


def test_the_task_is_named_after_the_folder_and_asks_with_its_instruction(folder):
    metadata = LocalRetrieval(folder).metadata
    assert metadata.name == "heldout"
    assert metadata.main_score == "ndcg_at_10"
    assert metadata.prompt == {"query": "find the function"}


def test_a_folder_without_task_json_has_no_instruction(folder):
    (folder / "task.json").unlink()
    assert LocalRetrieval(folder).metadata.prompt == {"query": ""}


def test_the_revision_follows_the_data(folder):
    before = LocalRetrieval(folder).metadata.revision
    assert LocalRetrieval(folder).metadata.revision == before
    write(
        folder, "queries.jsonl", [json.dumps({**row, "text": row["text"] + "!"}) for row in QUERIES]
    )
    assert LocalRetrieval(folder).metadata.revision != before


@pytest.mark.parametrize("name", ["corpus.jsonl", "queries.jsonl", "qrels/test.tsv"])
def test_a_missing_file_is_named(folder, name):
    (folder / name).unlink()
    with pytest.raises(ConfigError, match=f"{name}:1: there is no such file"):
        LocalRetrieval(folder)


@pytest.mark.parametrize(
    ("name", "lines", "message"),
    [
        (
            "qrels/test.tsv",
            [RELEVANT[0], "q1\td9\t1", "q9\td1\t1"],
            r"test\.tsv:2: query 'q1', document 'd9': no judgement names",
        ),
        ("qrels/test.tsv", [*RELEVANT, "q1\td1"], r"test\.tsv:4: must be a query id"),
        ("qrels/test.tsv", [*RELEVANT, "q1\td1\t0.5"], r"test\.tsv:4: must be .* whole number"),
        ("qrels/test.tsv", [*RELEVANT, "q1\td1\t--1"], r"test\.tsv:4: must be .* whole number"),
        ("qrels/test.tsv", RELEVANT[1:], r"test\.tsv:1: the first line must be"),
        ("qrels/test.tsv", RELEVANT[:1], r"test\.tsv: no line after the header"),
        (
            "corpus.jsonl",
            [json.dumps(CORPUS[0]), json.dumps(CORPUS[0])],
            r"corpus\.jsonl:2: _id 'd1' was given",
        ),
        ("corpus.jsonl", [json.dumps(CORPUS[0]), "{"], r"corpus\.jsonl:2: not JSON"),
        ("corpus.jsonl", ["[]"], r"corpus\.jsonl:1: not a JSON object"),
        (
            "corpus.jsonl",
            [json.dumps({**CORPUS[0], "title": 1})],
            r"corpus\.jsonl:1: title must be a string",
        ),
        ("corpus.jsonl", [], r"corpus\.jsonl: the file is empty"),
        (
            "queries.jsonl",
            [json.dumps({"_id": "q1", "text": " "})],
            r"queries\.jsonl:1: text must be a string",
        ),
        (
            "queries.jsonl",
            [json.dumps({"_id": 1, "text": "a"})],
            r"queries\.jsonl:1: _id must be a string",
        ),
        ("task.json", ["{}"], r"task\.json:1: instruction must be a string"),
        (
            "task.json",
            ['{"instruction": "", "limit": 2}'],
            r"task\.json:1: limit=2: must be a whole number of tokens",
        ),
        (
            "task.json",
            ['{"instruction": "", "score": "map"}'],
            r"task\.json:1: score='map': must be one of ndcg_at_10, ndcg_at_1",
        ),
    ],
)
def test_a_bad_line_is_named_with_its_file_and_number(folder, name, lines, message):
    write(folder, name, lines)
    with pytest.raises(ConfigError, match=message):
        LocalRetrieval(folder)


def test_official_folders_are_read_and_what_they_lack_is_counted(folder):
    """Missing judged documents (ArguAna), bare titles and negative grades (TREC-COVID)."""
    more = [
        {"_id": "d3", "title": "only a title", "text": ""},
        {"_id": "d4", "title": None, "text": ""},
    ]
    write(folder, "corpus.jsonl", [json.dumps(row) for row in [*CORPUS, *more]])
    write(
        folder, "qrels/test.tsv", [*RELEVANT, "q1\td3\t2", "q1\td9\t1", "q2\td1\t-1", "q9\td1\t1"]
    )
    data = LocalRetrieval(folder).dataset["default"]["test"]
    assert data["corpus"].to_list()[2:] == [
        {"id": row["_id"], "title": row["title"] or "", "text": ""} for row in more
    ]
    assert data["relevant_docs"] == {"q1": {"d1": 1, "d3": 2, "d9": 1}, "q2": {"d2": 1, "d1": 0}}
    assert LocalRetrieval(folder).notes == (
        "1 of 5 judgements are of documents that corpus.jsonl lacks: never retrieved",
        "1 judgements are of queries that queries.jsonl lacks: left out",
        "1 of 4 documents have neither title nor text: embedded as empty texts",
    )
    assert LocalRetrieval(folder).metadata.name == "heldout"


@pytest.mark.parametrize(("suffix", "compress"), [(".gz", gzip.compress), (".xz", lzma.compress)])
def test_files_may_be_compressed(suffix, compress, folder):
    plain = LocalRetrieval(folder).dataset["default"]["test"]
    for name in FILES:
        (folder / f"{name}{suffix}").write_bytes(compress((folder / name).read_bytes()))
        (folder / name).unlink()
    data = LocalRetrieval(folder).dataset["default"]["test"]
    assert (data["corpus"].to_list(), data["queries"].to_list()) == (
        plain["corpus"].to_list(),
        plain["queries"].to_list(),
    )
    assert data["relevant_docs"] == plain["relevant_docs"]
    (folder / f"{FILES[0]}{suffix}").write_bytes(compress(json.dumps(CORPUS[0]).encode() * 9)[:-12])
    with pytest.raises(ConfigError, match=r"corpus\.jsonl\.[gx]z:1: compressed data is damaged"):
        LocalRetrieval(folder)


def test_bytes_that_are_not_text_are_named_and_a_byte_order_mark_is_not_text(folder):
    rows = [json.dumps(row) for row in CORPUS]
    write(folder, "corpus.jsonl", ["\ufeff" + rows[0], rows[1]])
    assert len(LocalRetrieval(folder).dataset["default"]["test"]["corpus"]) == 2
    (folder / "corpus.jsonl").write_bytes(
        json.dumps(CORPUS[0]).encode() + b'\n{"_id": "d2", "text": "\xff"}\n'
    )
    with pytest.raises(ConfigError, match=r"corpus\.jsonl:2: not UTF-8"):
        LocalRetrieval(folder)


def test_the_task_says_how_much_is_read_of_a_text_and_what_counts(folder):
    assert (LocalRetrieval(folder).limit, LocalRetrieval(folder).metadata.main_score) == (
        None,
        "ndcg_at_10",
    )
    write(
        folder, "task.json", [json.dumps({"instruction": "", "limit": 4_096, "score": "ndcg_at_1"})]
    )
    assert (LocalRetrieval(folder).limit, LocalRetrieval(folder).metadata.main_score) == (
        4_096,
        "ndcg_at_1",
    )


def test_an_unknown_task_is_refused_with_suggestions():
    with pytest.raises(ConfigError, match=r"no MTEB task 'SciFct'.*did you mean SciFact"):
        find_tasks("SciFct")


def test_tasks_are_found_by_name_and_by_folder(folder):
    assert [task.metadata.name for task in find_tasks(f"SciFact,{folder}")] == [
        "SciFact",
        "heldout",
    ]


def test_two_tasks_of_one_name_are_refused(folder):
    with pytest.raises(ConfigError, match="names heldout more than once"):
        find_tasks(f"{folder},{folder}")


def test_no_task_is_refused():
    with pytest.raises(ConfigError, match="--tasks is empty"):
        find_tasks(",")


@pytest.mark.parametrize("name", paper_table()[1])
def test_a_task_of_the_papers_table_is_scored_on_its_split_and_subset(name):
    (task,) = find_tasks(name)
    of = next(task for task in find_tasks("", "MTEB(eng, v1)") if task.metadata.name == name)
    assert describe(task) == describe(of)
    assert describe(task).splits == (("dev",) if name == "MSMARCO" else ("test",))
    assert describe(task).subsets in (("default",), ("en",), ("en-en",)), "English"


def test_a_benchmark_is_found_by_name_with_its_own_subsets():
    tasks = find_tasks("", "MTEB(eng, v1)")
    assert len(tasks) == 56
    assert {task.metadata.name for task in tasks} == set(paper_table()[1])
    assert next(task for task in tasks if task.metadata.name == "MSMARCO").eval_splits == ["dev"]
    with pytest.raises(ConfigError, match=r"MTEB has no 'NanoBIER'; did you mean NanoBEIR"):
        find_tasks("", "NanoBIER")
