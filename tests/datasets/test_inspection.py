import html
import json
import re

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from e5jax.cli import main
from e5jax.data.records import Example
from e5jax.datasets.clean import clean
from e5jax.datasets.inspection import in_tokens, in_words, inspect
from e5jax.datasets.survey import survey
from tests.data.examples import example

HOSTILE = '</pre><script>alert("&")</script>\x1b[2J\x1b]0;x\x07\u202e\''
TASK = "Given a question, retrieve passages"


def write(path, *lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    texts = [line if isinstance(line, str) else line.to_json() for line in lines]
    path.write_text("".join(f"{one}\n" for one in texts), encoding="utf-8")
    return path


def seen(*files, **options):
    """The page of some files."""
    output = files[0].parent / "page.html"
    inspect(files, output, **options)
    return output.read_text(encoding="utf-8")


def tables(text):
    """The cells of all rows of each table."""
    return [
        [
            [html.unescape(cell) for cell in re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row)]
            for row in re.findall(r"<tr>(.*?)</tr>", table)
        ]
        for table in re.findall(r"<table>(.*?)</table>", text, re.DOTALL)
    ]


def numbered(i, **fields):
    return example(
        f"i{i}", f"question {i}", f"the answer of number {i} is this", source="nq"
    )._replace(**fields)


@pytest.fixture
def file(tmp_path):
    records = [
        numbered(i, negatives=("no",) * (i % 3), language="en" if i % 2 else "", instruction=TASK)
        for i in range(6)
    ]
    other = example("x", "问题", "这是答案", source="dureader")._replace(
        language="zh", positive_scores=(1.0,)
    )
    return write(tmp_path / "train.jsonl", *records, other, "no json", '{"query": "q"}')


def test_counts_on_the_page_are_those_of_the_file(file):
    sources, files, why, lengths, named, found, instructions = tables(seen(file))
    assert sources[1:] == [
        ["nq", "6", "85.7%", "1.00", "1.00", "0.0%", "unknown, en", "1"],
        ["dureader", "1", "14.3%", "1.00", "0.00", "100.0%", "zh", "1"],
    ]
    assert files[1:] == [[str(file), "7", "2", "22.2%", "–"]]
    assert why[1:] == [["not JSON", "1", "50.0%"], ["positives", "1", "50.0%"]]
    assert lengths[1:] == [
        ["Queries", "7", "1.9", "2", "2", "2", "2", "2"],
        ["Positives", "7", "6.3", "7", "7", "7", "7", "7"],
        ["Hard negatives", "6", "1.0", "1", "1", "1", "1", "1"],
    ]
    assert named[1:] == [["unknown", "3", "42.9%"], ["en", "3", "42.9%"], ["zh", "1", "14.3%"]]
    assert found[1:] == [["en", "3", "100.0%"]]
    assert instructions[1:] == [[TASK, "6", "85.7%", "nq"], ["none", "1", "14.3%", "dureader"]]


@pytest.mark.parametrize(
    "field", ["id", "query", "positives", "negatives", "instruction", "source"]
)
def test_hostile_text_is_escaped_and_its_controls_are_shown(field, tmp_path):
    value = (HOSTILE,) if field.endswith("s") else HOSTILE
    text = seen(
        write(tmp_path / "x.jsonl", numbered(1, negatives=("n",))._replace(**{field: value}))
    )
    assert "<script" not in text
    assert "&lt;script&gt;" in text
    assert r"\x1b[2J\x1b]0;x\x07\u202e" in text
    assert not re.findall(r"[\x00-\x08\x0b-\x1f\x7f\u202e]", text)


def test_lines_of_a_text_are_kept_and_the_page_loads_nothing(tmp_path):
    text = seen(write(tmp_path / "x.jsonl", numbered(1, positives=("def f():\n\treturn 1",))))
    assert "def f():\n\treturn 1</code></pre>" in text
    assert not re.findall(r"https?:|<link|<script|@import|url\(|src=", text)


def test_a_page_without_records_is_a_page(tmp_path):
    text = seen(write(tmp_path / "x.jsonl"))
    assert "<h1>0 training records</h1>" in text
    assert "nan" not in text
    assert "<svg" not in text


def test_the_same_seed_gives_the_same_bytes_and_another_seed_other_examples(tmp_path):
    path = write(tmp_path / "x.jsonl", *(numbered(i) for i in range(100)))
    first = seen(path)
    assert first == seen(path)
    asked = [
        re.findall(r"<blockquote>(.*?)</blockquote>", text) for text in (first, seen(path, seed=1))
    ]
    assert [len(questions) for questions in asked] == [10, 10]
    assert asked[0] != asked[1]


def test_each_record_is_as_likely_as_any_other_to_be_in_the_sample(tmp_path):
    path = write(tmp_path / "x.jsonl", *(numbered(i, language="en") for i in range(20)))
    counts = np.zeros(20)
    for seed in range(400):
        sample = survey([path], in_words, 5, seed).sample
        places = [int(one.id[1:]) for one in sample]
        assert places == sorted(set(places))
        counts[places] += 1
    assert np.abs(counts - 100).max() < 4.5 * np.sqrt(
        400 * 0.25 * 0.75
    )  # standard deviations; the seeds are fixed


def test_copies_are_counted_where_the_sample_is_everything(tmp_path):
    path = write(tmp_path / "x.jsonl", *(numbered(i % 8) for i in range(10)))
    assert "repeat an earlier one: 2 of 10, 20.0% (2 equal)." in seen(path)
    text = seen(path, size=9)
    assert "Not looked for among more than 9 records" in text
    assert "9 records taken at random" in text


def test_what_was_left_out_before_is_read_from_beside_the_files(file, tmp_path):
    clean([file], tmp_path / "out", [("q", "question 3")])
    text = seen(tmp_path / "out/data/train.jsonl")
    (files,) = [table for table in tables(text) if table[0][0] == "file"]
    assert files[1][1:] == ["6", "0", "0.0%", "2"]
    assert f"{tmp_path}/out/clean.json: 6 records of 7 kept." in text
    (removed,) = [table for table in tables(text) if table[0][0].startswith("removed before")]
    assert removed[1:] == [["contamination, equal: query", "1", "14.3%"]]


def test_many_sources_and_instructions_end_in_a_line_of_others(tmp_path):
    path = write(
        tmp_path / "x.jsonl",
        *(numbered(i % 40, source=f"s{i % 40}", instruction=f"do {i % 40}") for i in range(80)),
    )
    sources, *_, instructions = tables(seen(path))
    assert (len(sources), sources[-1][:3]) == (22, ["20 others", "40", "50.0%"])
    assert (len(instructions), instructions[-1][:3]) == (22, ["20 others", "40", "50.0%"])


def test_lengths_in_tokens_are_those_of_the_tokenizer_without_its_limits(tmp_path):
    tokenizer = Tokenizer(models.WordPiece({"a": 0, "b": 1, "c": 2}))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.enable_truncation(2)
    tokenizer.enable_padding(length=7)
    texts = ["a b c a", "", "a", *["a b"] * 2_500]
    assert in_tokens(tokenizer)(texts) == [4, 0, 1, *[2] * 2_500]
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    path = write(tmp_path / "x.jsonl", Example("a", "a b c", ("a",)))
    assert (
        main(
            [
                "data",
                "inspect",
                f"--input={path}",
                f"--output={tmp_path / 'y.html'}",
                f"--tokenizer={tmp_path}",
            ]
        )
        == 0
    )
    text = (tmp_path / "y.html").read_text(encoding="utf-8")
    assert "Lengths in tokens" in text
    assert ["Queries", "1", "3.0", "3", "3", "3", "3", "3"] in [
        row for table in tables(text) for row in table
    ]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--sample=0"], "--sample=0: must be at least 1"),
        (["--tokenizer=none"], "none: no such file"),
        (["--input=none.jsonl"], "--input: 'none.jsonl' matches no file"),
        (["--config.seed=1"], "`e5jax data inspect` takes no --config"),
    ],
)
def test_wrong_words_are_one_line_and_write_nothing(words, said, file, tmp_path, capsys):
    assert (
        main(["data", "inspect", f"--input={file}", f"--output={tmp_path / 'y.html'}", *words]) == 3
    )
    assert said in capsys.readouterr().err
    assert not (tmp_path / "y.html").exists()


@pytest.mark.parametrize("content", ["no json", "{}", json.dumps({"examples": 1, "kept": 1})])
def test_a_report_that_is_none_is_named(content, tmp_path):
    path = write(tmp_path / "out/data/x.jsonl", numbered(1))
    write(tmp_path / "out/clean.json", content)
    with pytest.raises(Exception, match=r"clean\.json: ") as caught:
        seen(path)
    assert type(caught.value).__name__ == "ConfigError"
