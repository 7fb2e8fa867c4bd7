import multiprocessing
import os
import re
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import grain
import pytest

from e5jax.data.source import ExampleSource
from e5jax.errors import ConfigError
from e5jax.records import Example


def example(i: int) -> Example:
    return Example(f"id{i}", f"query é😀 {i}", ("positive\n" * (i % 7 + 1),), (f"negative {i}",), "task", "en", "here")


def write(path, examples):
    path.write_text("".join(e.to_json() + "\n" for e in examples), encoding="utf-8")
    return path


@pytest.fixture
def files(tmp_path):
    return [write(tmp_path / "b.jsonl", map(example, range(30))), write(tmp_path / "a.jsonl", map(example, range(30, 50)))]


def test_examples_come_back_in_the_order_of_the_files(files):
    source = ExampleSource(files, negatives=1)
    assert [source[i] for i in range(len(source))] == [example(i) for i in range(50)]


def test_last_line_needs_no_newline(tmp_path):
    (tmp_path / "x.jsonl").write_text(example(0).to_json() + "\n" + example(1).to_json(), encoding="utf-8")
    assert ExampleSource([tmp_path / "x.jsonl"], 1)[1] == example(1)


def test_pattern_matches_are_sorted(files):
    source = ExampleSource([str(files[0].parent / "*.jsonl")], negatives=1)
    assert [source[0], source[20]] == [example(30), example(0)]


def test_pattern_without_match_is_named(tmp_path):
    with pytest.raises(ConfigError, match=re.escape("nothing-*.jsonl")):
        ExampleSource([tmp_path / "nothing-*.jsonl"], negatives=1)


def test_files_without_examples_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="no examples"):
        ExampleSource([write(tmp_path / "empty.jsonl", [])], negatives=1)


def test_all_bad_lines_are_counted_and_five_shown(tmp_path):
    path = write(tmp_path / "x.jsonl", [example(0), example(1)._replace(negatives=())])
    path.write_text(path.read_text(encoding="utf-8") + '{"query": "only"}\n' + "not json\n" * 5, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        ExampleSource([path], negatives=1)
    text = str(caught.value)
    assert "7 bad lines" in text
    assert [f"{path}:{n}: " in text for n in range(1, 9)] == [False, True, True, True, True, True, False, False]
    assert "0 negatives, but 1 are needed" in text


def test_out_of_range_is_an_index_error(files):
    source = ExampleSource(files, negatives=1)
    for i in (50, -1):
        with pytest.raises(IndexError):
            source[i]


def test_fingerprint_changes_with_any_byte_and_with_the_order(files):
    first = ExampleSource(files, 1).fingerprint
    assert first == ExampleSource(files, 1).fingerprint
    assert first != ExampleSource(files[::-1], 1).fingerprint
    write(files[1], [*map(example, range(30, 49)), example(49)._replace(query=example(49).query[::-1])])
    assert first != ExampleSource(files, 1).fingerprint


def test_fingerprint_knows_where_a_file_ends(tmp_path):
    lines = [example(0), example(1), example(2)]
    parts = [
        write(tmp_path / f"{name}.jsonl", part)
        for name, part in zip("abcd", (lines[:1], lines[1:], lines[:2], lines[2:]), strict=True)
    ]
    assert ExampleSource(parts[:2], 1).fingerprint != ExampleSource(parts[2:], 1).fingerprint


def test_a_spawned_worker_reads_its_own_copy(files):
    source = ExampleSource(files, negatives=1)
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        assert pool.submit(source.__getitem__, 41).result() == example(41)
        assert pool.submit(source.__len__).result() == 50
        assert pool.submit(getattr, source, "fingerprint").result() == source.fingerprint


def test_threads_do_not_disturb_each_other(files):
    source = ExampleSource(files, negatives=1)
    wanted = [i * 37 % 50 for i in range(2000)]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(source.__getitem__, wanted)) == [example(i) for i in wanted]


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="open files are counted in /proc, which Linux has")
def test_files_are_closed_with_the_source(files):
    before = len(os.listdir("/proc/self/fd"))
    source = ExampleSource(files, negatives=1)
    assert len(os.listdir("/proc/self/fd")) == before + 2
    del source
    assert len(os.listdir("/proc/self/fd")) == before


def test_grain_reads_it(files):
    dataset = grain.MapDataset.source(ExampleSource(files, negatives=1)).shuffle(seed=3)
    found = [dataset[i] for i in range(len(dataset))]
    assert found != list(map(example, range(50)))
    assert sorted(map(str, found)) == sorted(str(example(i)) for i in range(50))
