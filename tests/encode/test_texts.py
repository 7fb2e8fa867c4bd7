"""The rows of a file, in any format, or its name and line with what is wrong."""

import gzip
import json

import pyarrow
import pyarrow.parquet as pq
import pytest

from e5jax.encode.texts import Row, Texts
from e5jax.errors import ConfigError


def test_lines_are_rows_blank_ones_too(tmp_path):
    (tmp_path / "a.txt").write_text("one\n\n three\u2028more \nlast", encoding="utf-8")
    found = Texts(tmp_path / "a.txt")
    assert list(found) == list(found) == [Row("", "one"), Row("", ""), Row("", " three\u2028more "), Row("", "last")]
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


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.jsonl", '{"text": "x"}\n{"txt": 1}\n', r"a\.jsonl:2: no string `text`; --field names"),
        ("a.jsonl", '{"text": "x"}\n\n[]', r"a\.jsonl:3: not a JSON object"),
        ("a.jsonl", '{"text": 1}\n', r"a\.jsonl:1: no string `text`"),
        ("a.txt", b"x\n\xff\n", r"a\.txt:2: not UTF-8"),
        ("a.parquet", b"PAR1 not really", r"a\.parquet: Parquet data is damaged"),
        ("a.txt", "", "no texts in it"),
    ],
)
def test_what_is_wrong_is_named_by_file_and_line(name, content, said, tmp_path):
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ConfigError, match=said):
        Texts(tmp_path / name)
    with pytest.raises(ConfigError, match="there is no such file"):
        Texts(tmp_path / "missing.txt")
