"""What a data file is: by name and content, or refused."""

import bz2
import gzip
import lzma

import pytest
import zstandard

from e5jax.data.files import check_records, kind_of, lines
from e5jax.errors import ConfigError

JSON = b'{"id": "1", "text": "a"}\n'
PARQUET = b"PAR1 and more"


@pytest.mark.parametrize(
    ("name", "content", "kind"),
    [
        ("a.jsonl", JSON, "jsonl"),
        ("a.ndjson", JSON, "jsonl"),
        ("a.json", JSON, "jsonl"),
        ("a.json", b"\n [" + JSON + b"]", "array"),
        ("a.jsonl", b'["anchor", "positive"]\n', "jsonl"),
        ("a.csv", b"id,text\n", "csv"),
        ("a.TSV", b"id\ttext\n", "tsv"),
        ("a.txt", b"[1] a note {and} more\n{so\n", "text"),
        ("a.txt", b"", "text"),
        ("a.parquet", PARQUET, "parquet"),
        ("a", JSON, "jsonl"),
        ("a.data", b"\xef\xbb\xbf\n" + JSON, "jsonl"),
        ("part.00", PARQUET, "parquet"),
        ("a.jsonl.gz", gzip.compress(JSON, mtime=0), "jsonl"),
        ("a.csv.zst", zstandard.compress(b"id,text\n"), "csv"),
        ("a.txt.BZ2", bz2.compress(b"text\n"), "text"),
        ("a.data.xz", lzma.compress(JSON), "jsonl"),
        ("a.jsonl", gzip.compress(JSON, mtime=0), "jsonl"),
    ],
)
def test_a_file_is_what_its_name_says_and_json_and_parquet_are_known_without(
    name, content, kind, tmp_path
):
    (tmp_path / name).write_bytes(content)
    assert kind_of(tmp_path / name) == kind


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        (
            "a.dat",
            b"one\ntwo\n",
            r"the suffix '\.dat' does not say what is in it; these are read: JSON lines \(\.jsonl, \.ndjson",
        ),
        ("a", b"id,text\n", r"the suffix '' does not say"),
        ("a.zip", b"PK\3\4", r"the suffix '\.zip'"),
        ("a.tar.gz", gzip.compress(b"a\0", mtime=0), r"the suffix '\.tar'"),
        ("a.csv", JSON, r"ends in \.csv, but it is JSON lines; rename it"),
        ("a.txt", JSON, r"ends in \.txt, but it is JSON lines"),
        ("a.tsv", b"[" + JSON + b"]", r"ends in \.tsv, but it is a JSON array"),
        ("a.jsonl", PARQUET, r"ends in \.jsonl, but it is a Parquet file"),
        ("a.parquet", JSON, r"ends in \.parquet, but it is JSON lines"),
        ("a.parquet", b"", r"ends in \.parquet, but it is no Parquet file"),
        (
            "a.parquet.gz",
            gzip.compress(PARQUET, mtime=0),
            "a compressed Parquet file; decompress it first",
        ),
        ("a.jsonl", JSON.decode().encode("utf-16"), r":1: not UTF-8: UTF-16 or UTF-32; `iconv"),
    ],
)
def test_what_nobody_can_know_is_refused_and_not_guessed(name, content, said, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ConfigError, match=said) as caught:
        kind_of(tmp_path / name)
    assert str(caught.value).startswith(str(tmp_path / name))


def test_records_are_json_lines_and_other_files_are_sent_to_convert(tmp_path):
    for name, content, kind in [
        ("a.csv", b"anchor,positive\n", "CSV"),
        ("a.txt", b"x\n", "lines of text"),
        ("a.json", b"[{}]", "a JSON"),
    ]:
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ConfigError, match=rf"is {kind}.*`e5jax data convert --input="):
            check_records(tmp_path / name)
    (tmp_path / "a.jsonl").write_bytes(JSON)
    check_records(tmp_path / "a.jsonl")


@pytest.mark.parametrize(
    "compress", [bytes, gzip.compress, bz2.compress, lzma.compress, zstandard.compress]
)
def test_lines_are_the_same_from_every_compression_with_bom_and_both_line_ends(compress, tmp_path):
    content = "\ufeffone\r\n\n two\u2028 \n\t\r\nlast".encode()
    (tmp_path / "a.txt").write_bytes(compress(content))
    found = list(lines(tmp_path / "a.txt"))
    assert [tuple(line) for line in found] == [
        (1, 0, "one"),
        (3, 9, " two\u2028 "),
        (5, 21, "last"),
    ]
    assert [line.text for line in lines(tmp_path / "a.txt", blank=True)] == [
        "one",
        "",
        " two\u2028 ",
        "\t",
        "last",
    ]  # type: ignore[union-attr]
