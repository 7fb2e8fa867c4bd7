import bz2
import gzip
import lzma
import multiprocessing
import os
import pickle
import re
import tempfile
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import grain
import pytest
import zstandard

from e5jax.data.records import Example
from e5jax.data.source import ExampleSource, Needs, expand
from e5jax.errors import ConfigError


def example(i: int) -> Example:
    return Example(
        f"id{i}",
        f"query é😀 {i}",
        ("positive\n" * (i % 7 + 1),),
        (f"negative {i}",),
        "task",
        "en",
        "here",
    )


def write(path, examples):
    path.write_text("".join(e.to_json() + "\n" for e in examples), encoding="utf-8")
    return path


@pytest.fixture
def files(tmp_path):
    return [
        write(tmp_path / "b.jsonl", map(example, range(30))),
        write(tmp_path / "a.jsonl", map(example, range(30, 50))),
    ]


def test_examples_come_back_in_the_order_of_the_files(files):
    source = ExampleSource(files, Needs(negatives=1))
    assert [source[i] for i in range(len(source))] == [example(i) for i in range(50)]


def test_last_line_needs_no_newline(tmp_path):
    (tmp_path / "x.jsonl").write_text(
        example(0).to_json() + "\n" + example(1).to_json(), encoding="utf-8"
    )
    assert ExampleSource([tmp_path / "x.jsonl"], Needs(negatives=1))[1] == example(1)


def test_pattern_matches_are_sorted(files):
    source = ExampleSource([str(files[0].parent / "*.jsonl")], Needs(negatives=1))
    assert [source[0], source[20]] == [example(30), example(0)]


def test_pattern_without_match_is_named(tmp_path):
    with pytest.raises(ConfigError, match=re.escape("nothing-*.jsonl")):
        ExampleSource([tmp_path / "nothing-*.jsonl"], Needs(negatives=1))


def test_files_without_examples_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="no examples"):
        ExampleSource([write(tmp_path / "empty.jsonl", [])], Needs(negatives=1))


def test_all_bad_lines_are_counted_and_five_shown(tmp_path):
    path = write(tmp_path / "x.jsonl", [example(0), example(1)._replace(negatives=())])
    path.write_text(
        path.read_text(encoding="utf-8") + '{"query": "only"}\n' + "not json\n" * 5,
        encoding="utf-8",
    )
    with pytest.raises(ConfigError) as caught:
        ExampleSource([path], Needs(negatives=1))
    text = str(caught.value)
    assert "7 bad lines" in text
    assert [f"{path}:{n}: " in text for n in range(1, 9)] == [
        False,
        True,
        True,
        True,
        True,
        True,
        False,
        False,
    ]
    assert "0 negatives, but 1 are needed" in text


def test_out_of_range_is_an_index_error(files):
    source = ExampleSource(files, Needs(negatives=1))
    for i in (50, -1):
        with pytest.raises(IndexError):
            source[i]


def test_fingerprint_changes_with_any_byte_and_with_the_order(files):
    first = ExampleSource(files, Needs(negatives=1)).fingerprint
    assert first == ExampleSource(files, Needs(negatives=1)).fingerprint
    assert first != ExampleSource(files[::-1], Needs(negatives=1)).fingerprint
    write(
        files[1],
        [*map(example, range(30, 49)), example(49)._replace(query=example(49).query[::-1])],
    )
    assert first != ExampleSource(files, Needs(negatives=1)).fingerprint


def test_fingerprint_knows_where_a_file_ends(tmp_path):
    lines = [example(0), example(1), example(2)]
    parts = [
        write(tmp_path / f"{name}.jsonl", part)
        for name, part in zip("abcd", (lines[:1], lines[1:], lines[:2], lines[2:]), strict=True)
    ]
    assert (
        ExampleSource(parts[:2], Needs(negatives=1)).fingerprint
        != ExampleSource(parts[2:], Needs(negatives=1)).fingerprint
    )


def test_a_spawned_worker_reads_its_own_copy(files):
    source = ExampleSource(files, Needs(negatives=1))
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        assert pool.submit(source.__getitem__, 41).result() == example(41)
        assert pool.submit(source.__len__).result() == 50
        assert pool.submit(getattr, source, "fingerprint").result() == source.fingerprint


def test_threads_do_not_disturb_each_other(files):
    source = ExampleSource(files, Needs(negatives=1))
    wanted = [i * 37 % 50 for i in range(2000)]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(source.__getitem__, wanted)) == [example(i) for i in wanted]


@pytest.mark.skipif(
    not Path("/proc/self/fd").is_dir(), reason="open files are counted in /proc, which Linux has"
)
def test_files_are_closed_with_the_source(files):
    before = len(os.listdir("/proc/self/fd"))
    source = ExampleSource(files, Needs(negatives=1))
    assert len(os.listdir("/proc/self/fd")) == before + 2
    del source
    assert len(os.listdir("/proc/self/fd")) == before


def test_grain_reads_it(files):
    dataset = grain.MapDataset.source(ExampleSource(files, Needs(negatives=1))).shuffle(seed=3)
    found = [dataset[i] for i in range(len(dataset))]
    assert found != list(map(example, range(50)))
    assert sorted(map(str, found)) == sorted(str(example(i)) for i in range(50))


# --- files as people have them ---------------------------------------------------------------------------------

COMPRESS = {
    ".gz": gzip.compress,
    ".zst": zstandard.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
}


@pytest.mark.parametrize("suffix", COMPRESS)
def test_a_compressed_file_is_the_same_source_as_the_file_itself(files, suffix):
    packed = [file.with_name(file.name + suffix) for file in files]
    for file, other in zip(files, packed, strict=True):
        other.write_bytes(COMPRESS[suffix](file.read_bytes()))
    source = ExampleSource(packed, Needs(negatives=1))
    assert [source[i] for i in range(50)] == [example(i) for i in range(50)]
    assert (
        source.fingerprint == ExampleSource(files, Needs(negatives=1)).fingerprint
    )  # a run goes on if its files are compressed


def opened(source: ExampleSource) -> int:
    """Inode of the file that is read."""
    return os.fstat(source._parts[0]._file._descriptor).st_ino  # type: ignore[union-attr]


@pytest.mark.skipif(
    not Path("/proc/self/fd").is_dir(), reason="files are shared through /proc, which Linux has"
)
def test_a_spawned_worker_reads_what_was_decompressed_once(files):
    files[0].with_suffix(".gz").write_bytes(gzip.compress(files[0].read_bytes()))
    source = ExampleSource([files[0].with_suffix(".gz")], Needs(negatives=1))
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        assert pool.submit(opened, source).result() == opened(source)
        assert pool.submit(source.__getitem__, 17).result() == example(17)


def test_a_copy_whose_origin_is_gone_decompresses_anew(files):
    files[0].with_suffix(".gz").write_bytes(gzip.compress(files[0].read_bytes()))
    source = ExampleSource([files[0].with_suffix(".gz")], Needs(negatives=1))
    content = pickle.dumps(source)
    del source
    assert pickle.loads(content)[17] == example(17)  # noqa: S301


def test_bom_blank_lines_and_windows_line_ends_are_no_part_of_examples(tmp_path):
    lines = [example(i)._replace(id="").to_json().replace('"id": "", ', "") for i in range(3)]
    path = tmp_path / "x.jsonl"
    path.write_bytes("\ufeff\r\n{}\r\n\r\n{}\r\n \t\n{}\n\n".format(*lines).encode())
    source = ExampleSource([path], Needs(negatives=1))
    assert [source[i] for i in range(len(source))] == [
        example(i)._replace(id=f"{path}:{n}") for i, n in enumerate([2, 4, 6])
    ]
    path.write_bytes("\ufeff{}\n{}".format(*lines).encode())
    assert [ExampleSource([path], Needs(negatives=1))[i].query for i in range(2)] == [
        example(i).query for i in range(2)
    ]


def test_a_file_counts_once_by_whatever_names_it_is_given(files, monkeypatch):
    folder = files[0].parent
    (folder / "link.jsonl").symlink_to(files[0])
    monkeypatch.chdir(folder)
    names = ["b.jsonl", str(files[0]), "./b.jsonl", "b.*", "link.jsonl", "*.jsonl"]
    assert expand(names) == [Path("b.jsonl"), Path("a.jsonl")]
    assert len(ExampleSource(names, Needs(negatives=1))) == 50


def test_a_damaged_archive_is_refused_with_the_line_it_ends_at(tmp_path):
    path = tmp_path / "x.jsonl.gz"
    content = "".join(example(i).to_json() + "\n" for i in range(5)).encode()
    path.write_bytes(gzip.compress(content) + gzip.compress(content)[:-4])
    with pytest.raises(
        ConfigError, match=re.escape(f"{path}:11: compressed data is damaged: it ends too early")
    ):
        ExampleSource([path], Needs(negatives=1))


def test_no_temporary_file_stays(files, tmp_path, monkeypatch):
    files[0].with_suffix(".gz").write_bytes(gzip.compress(files[0].read_bytes()))
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    source = ExampleSource([files[0].with_suffix(".gz")], Needs(negatives=1))
    assert list((tmp_path / "tmp").iterdir()) == []
    assert source[3] == example(3)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "none"))
    with pytest.raises(
        ConfigError, match=r"cannot be copied to .*none: No such file or directory; set TMPDIR"
    ):
        ExampleSource([files[0].with_suffix(".gz")], Needs(negatives=1))


# --- examples that no batch could use --------------------------------------------------------------------------


def record(negatives, query="q", positives=("p", "p2")):
    return Example("x", query, tuple(positives), tuple(negatives))


@pytest.mark.parametrize(
    ("negatives", "drawn", "masked", "said"),
    [
        ((), None, True, None),  # others of the batch are its negatives
        ((), 1, False, "no negatives, and its query is compared with no others"),
        (("n",), 1, True, None),
        (("q", "p2"), 1, False, None),
        (("q", "p2"), 1, True, "2 negatives, all equal to its query or a positive"),
        (
            ("q", "n"),
            1,
            True,
            "1 negatives are equal to its query or a positive, and a batch may take no others",
        ),
        (("q", "n"), 2, True, None),  # both are taken
        (("q", "n", "m"), 2, True, None),  # one of any two is a negative
        (("q", "p", "n"), 2, True, "2 negatives are equal"),
    ],
)
def test_a_query_that_could_meet_no_negative_is_refused_on_opening(
    negatives, drawn, masked, said, tmp_path
):
    path = write(tmp_path / "x.jsonl", [record(["n", "m"]), record(negatives)])
    if said is None:
        assert len(ExampleSource([path], Needs(0, drawn, masked))) == 2
    else:
        with pytest.raises(ConfigError, match=rf"1 bad lines, the first are\n  {path}:2: {said}"):
            ExampleSource([path], Needs(0, drawn, masked))
