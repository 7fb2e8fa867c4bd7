import json
import multiprocessing
import os
import random
import shutil
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import grain
import numpy as np
import pytest

from e5jax.data.prepared import Prepared, decode
from e5jax.data.records import Example
from e5jax.data.source import ExampleSource, Needs
from e5jax.datasets.builder import write
from e5jax.datasets.public_sets import named
from e5jax.errors import ConfigError, RecordError

COUNT = 50


def example(i: int) -> Example:
    positives = tuple(f"positive é😀 {j}\n\t" * (j + 1) for j in range(i % 3 + 1))
    scores = tuple(float(np.float32(0.1 * i + j)) for j in range(len(positives)))
    return Example(
        f"id{i}",
        f"query {i}",
        positives,
        (f"negative {i}",) * (i % 2 + 1),
        "task" * (i % 2),
        "en",
        "here",
        scores,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("prepared") / "nq/1.0.0"
    root.parent.mkdir()
    assert write(named("nq"), map(example, range(COUNT)), root) == COUNT
    (root / "manifest.json").write_text(json.dumps({"schema": 1, "examples": COUNT}))
    return root


@pytest.fixture
def copied(folder, tmp_path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "copy"))


def test_examples_come_back_as_they_were_in_their_order(folder):
    source = ExampleSource([folder], Needs(negatives=1))
    assert [source[i] for i in range(len(source))] == [example(i) for i in range(COUNT)]


def test_the_folder_of_a_set_stands_for_its_only_version(folder, tmp_path):
    assert (
        ExampleSource([folder.parent], Needs(negatives=1)).fingerprint
        == ExampleSource([folder], Needs(negatives=1)).fingerprint
    )
    for version in ("1.0.0", "2.0.0"):
        shutil.copytree(folder, tmp_path / "nq" / version)
    with pytest.raises(ConfigError, match=r"nq has 1\.0\.0, 2\.0\.0; name one of them"):
        ExampleSource([tmp_path / "nq"], Needs(negatives=1))


def test_files_and_folders_are_read_one_behind_the_other(folder, tmp_path):
    (tmp_path / "a.jsonl").write_text(example(100).to_json() + "\n")
    (tmp_path / "b.jsonl").write_text(example(101).to_json() + "\n" + example(102).to_json() + "\n")
    source = ExampleSource([tmp_path / "a.jsonl", folder, tmp_path / "b.jsonl"], Needs(negatives=1))
    assert len(source) == COUNT + 3
    assert [source[i].id for i in (0, 1, COUNT, COUNT + 1, COUNT + 2)] == [
        "id100",
        "id0",
        f"id{COUNT - 1}",
        "id101",
        "id102",
    ]
    for i in (-1, COUNT + 3):
        with pytest.raises(IndexError):
            source[i]


def test_the_fingerprint_is_that_of_the_examples_not_of_the_files(folder, tmp_path):
    def fingerprint(examples: list[Example], name: str) -> str:
        write(named("nq"), examples, tmp_path / name)
        (tmp_path / name / "manifest.json").write_text(
            json.dumps({"schema": 1, "examples": len(examples)})
        )
        return ExampleSource([tmp_path / name], Needs(negatives=1)).fingerprint

    examples = [example(i) for i in range(COUNT)]
    same = ExampleSource([folder], Needs(negatives=1)).fingerprint
    assert fingerprint(examples, "again") == same
    assert fingerprint(examples[::-1], "reversed") != same
    assert fingerprint([*examples[:-1], examples[-1]._replace(query="other")], "changed") != same


def test_a_spawned_worker_reads_its_own_copy(folder):
    source = ExampleSource([folder], Needs(negatives=1))
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        assert pool.submit(source.__getitem__, 41).result() == example(41)
        assert pool.submit(getattr, source, "fingerprint").result() == source.fingerprint


def test_threads_do_not_disturb_each_other(folder):
    source = ExampleSource([folder], Needs(negatives=1))
    places = [i * 37 % COUNT for i in range(1_000)]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(source.__getitem__, places)) == [example(i) for i in places]


@pytest.mark.skipif(
    not Path("/proc/self/fd").is_dir(), reason="open files are counted in /proc, which Linux has"
)
def test_files_are_closed_with_the_source(folder):
    before = len(os.listdir("/proc/self/fd"))
    source = ExampleSource([folder], Needs(negatives=1))
    assert source[3] == example(3)
    assert len(os.listdir("/proc/self/fd")) == before + 1
    del source
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_record_is_found_in_whichever_file_it_is(folder, tmp_path):
    shards = tmp_path / "shards"
    shards.mkdir()
    parts = [range(20), range(20, 21), range(21, COUNT)]
    for number, part in enumerate(parts):
        write(named("nq"), map(example, part), tmp_path / f"part{number}")
        (file,) = (tmp_path / f"part{number}").glob("*.array_record-*")
        file.rename(shards / f"nq-train.array_record-0000{number}-of-00003")
    (shards / "manifest.json").write_text(json.dumps({"schema": 1, "examples": COUNT}))
    source = ExampleSource([shards], Needs(negatives=1))
    assert [source[i] for i in range(COUNT)] == [example(i) for i in range(COUNT)]
    assert source.fingerprint == ExampleSource([folder], Needs(negatives=1)).fingerprint


def test_grain_reads_it(folder):
    dataset = grain.MapDataset.source(ExampleSource([folder], Needs(negatives=1))).shuffle(seed=3)
    assert sorted(str(dataset[i]) for i in range(len(dataset))) == sorted(
        str(example(i)) for i in range(COUNT)
    )


# --- what is refused -----------------------------------------------------------------------------------------


def test_too_few_negatives_are_named_with_their_record(folder):
    with pytest.raises(
        ConfigError,
        match=rf"25 bad lines, the first are\n  {folder}: record 0: 1 negatives, but 2 are needed",
    ):
        ExampleSource([folder], Needs(negatives=2))


def test_a_folder_that_was_not_prepared_to_its_end_is_none(copied):
    (copied / "manifest.json").unlink()
    with pytest.raises(ConfigError, match="matches no file below"):
        ExampleSource([copied], Needs(negatives=1))


@pytest.mark.parametrize(
    ("manifest", "said"),
    [
        (
            '{"schema": 2, "examples": 50}',
            "schema 2: this e5jax reads schema 1; prepare the set again",
        ),
        (
            '{"schema": 1, "examples": 49}',
            "has 50 records, and its manifest says 49: files are damaged or missing; prepare the set again",
        ),
        ('{"schema": 1}', r"manifest\.json: is not what `e5jax data prepare` writes"),
        ("[]", r"manifest\.json: is not what `e5jax data prepare` writes"),
        ("{", r"manifest\.json: is not what `e5jax data prepare` writes"),
    ],
)
def test_a_manifest_that_does_not_fit_is_refused(manifest, said, copied):
    (copied / "manifest.json").write_text(manifest)
    with pytest.raises(ConfigError, match=said):
        Prepared(copied)


@pytest.mark.parametrize(("share", "more"), [(0, b""), (0.5, b""), (0, b"text" * 50_000)])
def test_files_that_are_not_whole_are_refused(share, more, copied):
    (file,) = copied.glob("*.array_record-*")
    content = file.read_bytes()
    file.write_bytes(content[: int(share * len(content))] + more)
    with pytest.raises(
        ConfigError,
        match="has 0 records, and its manifest says 50: files are damaged or missing; prepare the set again",
    ):
        Prepared(copied)
    file.unlink()
    with pytest.raises(
        ConfigError, match="has 0 records, and its manifest says 50: files are damaged or missing"
    ):
        Prepared(copied)


def test_a_damaged_record_is_named_and_the_others_are_checked(copied):
    (file,) = copied.glob("*.array_record-*")
    content = bytearray(file.read_bytes())
    place = (
        content.index(b"query 7") if b"query 7" in content else 1_000
    )  # compressed: some record near the start
    content[place : place + 20] = b"\xff" * 20
    file.write_bytes(content)
    with pytest.raises(
        ConfigError,
        match=rf"1 bad lines, the first are\n  {copied}: record \d+: its file is damaged: ",
    ):
        ExampleSource([copied], Needs(negatives=1))


def test_bytes_that_are_no_example_have_a_reason():
    chooser = random.Random(0)
    wrong = [b"\x0a\xff", b"", *(chooser.randbytes(chooser.randrange(1, 40)) for _ in range(500))]
    for record in wrong:
        with pytest.raises(RecordError, match="not a record of an example"):
            decode(record)
