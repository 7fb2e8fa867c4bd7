"""The rows of a file, in any format, or its name and line with what is wrong."""

import gzip
import json

import pyarrow
import pyarrow.parquet as pq
import pytest

from e5jax.errors import ConfigError
from e5jax.inference.text_files import Row, Texts
from e5jax.mine.corpus import Corpus


def test_lines_are_rows_blank_ones_too(tmp_path):
    (tmp_path / "a.txt").write_text("one\n\n three\u2028more \nlast", encoding="utf-8")
    found = Texts(tmp_path / "a.txt")
    assert (
        list(found)
        == list(found)
        == [Row("", "one"), Row("", ""), Row("", " three\u2028more "), Row("", "last")]
    )
    assert (found.count, found.named) == (4, False)


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz", ".parquet"])
def test_records_have_names_and_titles(suffix, tmp_path):
    rows = [{"_id": "a", "title": "T", "text": "one"}, {"_id": "b", "title": "", "text": "two"}]
    file = tmp_path / f"corpus{suffix}"
    if suffix == ".parquet":
        pq.write_table(pyarrow.Table.from_pylist(rows), file)
    else:
        content = "".join(json.dumps(row) + "\n" for row in rows).encode()
        file.write_bytes(gzip.compress(content) if suffix.endswith("gz") else content)
    found = Texts(file)
    assert list(found) == [Row("a", "T one"), Row("b", "two")]
    assert (found.count, found.named) == (2, True)
    assert list(Texts(file, "title")) == [Row("a", "T"), Row("b", "")]


def test_texts_have_one_fingerprint_in_every_format(tmp_path):
    (tmp_path / "a.txt").write_text("one\ntwo\n")
    (tmp_path / "a.jsonl").write_text('{"text": "one"}\n{"text": "two"}\n')
    (tmp_path / "b.txt").write_text("onet\nwo\n")
    assert Texts(tmp_path / "a.txt").fingerprint == Texts(tmp_path / "a.jsonl").fingerprint
    assert Texts(tmp_path / "a.txt").fingerprint != Texts(tmp_path / "b.txt").fingerprint


ROWS = [Row("1", "hello"), Row("2", "a, b\nc")]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", 'id,text\n1,hello\n2,"a, b\nc"\n'),
        ("a.csv", '\ufefftext,other,id\r\nhello,,1\r\n\r\n"a, b\nc",,2\r\n'),
        ("a.ndjson", '{"id": 1, "text": "hello"}\n\n{"id": 2, "text": "a, b\\nc"}\n'),
        ("a.JSON", '[{"id": "1", "text": "hello"}, {"id": "2",\n"text": "a, b\\nc"}]'),
        ("rows", '{"_id": 1, "text": "hello"}\n{"_id": 2, "text": "a, b\\nc"}\n'),
    ],
)
def test_tables_and_json_give_the_same_rows(name, content, tmp_path):
    (tmp_path / name).write_bytes(content.encode())
    assert list(Texts(tmp_path / name)) == ROWS
    assert list(Corpus(tmp_path / name)) == [row.text for row in ROWS]
    assert Corpus(tmp_path / name).place_of_id("2") == 1


def test_a_field_of_lines_of_text_is_refused(tmp_path):
    (tmp_path / "a.txt").write_text("one\n")
    with pytest.raises(
        ConfigError, match=r"--field=body: .*a\.txt is lines of text, which have no fields"
    ):
        Texts(tmp_path / "a.txt", "body")


def test_parquet_without_the_column_or_with_wrong_utf8_is_named(tmp_path):
    pq.write_table(pyarrow.table({"body": ["x"]}), tmp_path / "a.parquet")
    with pytest.raises(ConfigError, match=r"a\.parquet: no column `text` among body"):
        Texts(tmp_path / "a.parquet")
    wrong = pyarrow.array([b"fine", b"\xff"]).cast(pyarrow.binary()).view(pyarrow.string())
    pq.write_table(pyarrow.table({"text": wrong}), tmp_path / "a.parquet")
    with pytest.raises(ConfigError, match=r"a\.parquet:2: not UTF-8"):
        Texts(tmp_path / "a.parquet")


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.jsonl", '{"text": "x"}\n{"txt": 1}\n', r"a\.jsonl:2: no string `text`; --field names"),
        ("a.jsonl", '{"text": "x"}\n\n[]', r"a\.jsonl:3: not a JSON object"),
        ("a.jsonl", '{"text": 1}\n', r"a\.jsonl:1: no string `text`"),
        ("a.txt", b"x\n\xff\n", r"a\.txt:2: not UTF-8"),
        ("a.parquet", b"PAR1 not really", r"a\.parquet: Parquet data is damaged"),
        ("a.txt", "", "no texts in it"),
        ("a.csv", "id,body\n1,x\n", r"a\.csv:1: no column `text` among id, body; --field names"),
        (
            "a.csv",
            "id,text\n1,x,y\n",
            r"a\.csv:2: number of fields is not that of the header: 3, not 2",
        ),
        ("a.csv", "id,text\n", "no texts in it"),
        ("a.csv", "text,text\nx,y\n", r"a\.csv:1: the column 'text' occurs twice"),
        ("a.dat", "x\n", r"a\.dat: the suffix '\.dat' does not say what is in it"),
        ("a.txt", '{"text": "x"}\n', r"a\.txt: its name ends in \.txt, but it is JSON lines"),
        ("a.txt", "one\rtwo\r", r"a\.txt:1: a carriage return inside the line"),
        ("a.txt", "one\nt\0w\0o\n", r"a\.txt:2: holds a NUL character"),
        ("a.json", '["one"]', r"a\.json:1: not a JSON object"),
        (
            "a.jsonl",
            '{"id": "1", "text": "a"}\n\n{"text": "b"}\n',
            r"a\.jsonl:3: has no id, but .*a\.jsonl:1 has one",
        ),
        ("a.csv", "id,text\n,a\n2,b\n", r"a\.csv:3: has an id, but .*a\.csv:2 has none"),
        (
            "a.jsonl",
            '{"id": 1.5, "text": "a"}\n',
            r"a\.jsonl:1: id: must be a string or a whole number: not 1\.5",
        ),
        ("a.jsonl", '{"id": "\\ud800", "text": "a"}\n', r"a\.jsonl:1: id: not Unicode text"),
        ("a.jsonl", '{"title": 5, "text": "a"}\n', r"a\.jsonl:1: title: must be a string"),
    ],
)
def test_what_is_wrong_is_named_by_file_and_line(name, content, said, tmp_path):
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ConfigError, match=said):
        Texts(tmp_path / name)
    with pytest.raises(ConfigError, match="there is no such file"):
        Texts(tmp_path / "missing.txt")
