"""Odd files through all that reads texts and records: the right rows, or one line that names the file, and exit code 3.

ODD_FILES=300 in the environment tries that many, each also with the commands that need a model.
"""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from e5jax.cli import main
from e5jax.data.records import Example
from e5jax.data.source import ExampleSource
from e5jax.datasets.readers.formats import read
from e5jax.datasets.readers.result import Rejected
from e5jax.errors import ConfigError
from e5jax.inference.text_files import Texts
from e5jax.mine.corpus import Corpus
from e5jax.mine.examples import Examples
from tests.data.odd import Odd, odd
from tests.mine import small

SEED = 7
COUNT = int(os.environ.get("ODD_FILES", "0"))
NUMBERS = range(COUNT) if COUNT else range(0, 300, 7)
EMPTY_IDS = ("id None", "id ''")  # which a corpus may have


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return small.model_folder(tmp_path_factory.mktemp("model") / "m")


@pytest.mark.parametrize("number", NUMBERS)
def test_a_file_is_read_as_what_it_is_or_refused_by_name(number, tmp_path, capsys, request):
    file = odd(SEED, number)
    path = file.write(tmp_path)
    print(file.what)
    {"texts": _check_texts, "records": _check_records, "pairs": _check_pairs}[file.schema](
        file, path, capsys
    )
    if COUNT:
        _check_with_model(file, path, request.getfixturevalue("model"), capsys)


def test_the_files_are_the_same_in_every_run_and_hold_every_fault():
    assert odd(SEED, 3) == odd(SEED, 3) != odd(SEED + 1, 3)
    files = [odd(SEED, number) for number in range(288)]
    assert {(file.schema, file.fault) for file in files} >= {
        (schema, fault)
        for schema in ("texts", "records", "pairs")
        for fault in ("none", "line", "file", "damaged")
    }
    assert len({file.what for file in files}) > 60


# --- texts: encode, calibrate, mine --corpus -------------------------------------------------------------------


def _check_texts(file: Odd, path: Path, capsys) -> None:
    if file.fault == "none":
        assert [tuple(row) for row in Texts(path)] == file.rows
    else:
        _refused(file, path, lambda: Texts(path))
    if file.fault == "none" or file.what in EMPTY_IDS:
        texts = list(dict.fromkeys(text.strip() for _, text in file.rows))
        corpus = Corpus(path)
        assert [text for text in corpus if text in texts] == texts
        assert len(corpus) == len(texts) + (file.fault != "none")
    else:
        _refused(file, path, lambda: Corpus(path))
    for action in ("validate", "inspect", "clean"):  # none of these files is a record
        code, said = _run(capsys, "data", action, f"--input={path}", *_output(action, path))
        if action == "validate" or "data convert" in said or "these are read" in said:
            assert code == 3
            assert str(path) in said
    _refused(file._replace(fault="file"), path, lambda: ExampleSource([path]))


# --- training records: train, validate, clean, inspect, convert, mine --input ----------------------------------


def _check_records(file: Odd, path: Path, capsys) -> None:
    if file.fault == "none":
        source = ExampleSource([path])
        assert [_pair(source[i]) for i in range(len(source))] == file.rows
        assert [(asked.query, asked.positives[0]) for asked in Examples(path)] == file.rows
    else:
        _refused(file, path, lambda: ExampleSource([path]))
        _refused(file, path, lambda: Examples(path))
    code, said = _run(capsys, "data", "validate", f"--input={path}")
    assert code == (0 if file.fault == "none" else 3)
    if file.fault == "line":
        assert f"{path}:{file.line}: " in said
    for action in ("convert", "clean"):
        output = path.with_name(action if action == "clean" else "converted.jsonl")
        code, said = _run(capsys, "data", action, f"--input={path}", f"--output={output}")
        if file.fault in ("none", "line"):
            assert code == 0, said
            written = output if action == "convert" else next((output / "data").glob("*.jsonl"))
            _check_written(file, path, written)
        else:
            assert code in (0, 3)
            assert (
                code == 3
                or file.fault == "damaged"
                or not path.read_bytes().strip(b" \r\n\xef\xbb\xbf")
            )
    code, said = _run(capsys, "data", "inspect", f"--input={path}", *_output("inspect", path))
    assert code == 0 or file.fault in ("file", "damaged")


# --- others' pairs: convert ------------------------------------------------------------------------------------


def _check_pairs(file: Odd, path: Path, capsys) -> None:
    _refused(file._replace(fault="file"), path, lambda: ExampleSource([path]))
    output = path.with_name("converted.jsonl")
    code, said = _run(capsys, "data", "convert", f"--input={path}", f"--output={output}")
    if file.fault in ("none", "line"):
        assert code == 0, said
        _check_written(file, path, output)
    elif code == 0:
        assert file.fault == "damaged"
        _check_written(file, path, output)
    else:
        assert code == 3
        assert str(path) in said


def _check_written(file: Odd, path: Path, output: Path) -> None:
    found = list(read(output, "e5jax"))
    assert not [outcome for outcome in found if isinstance(outcome, Rejected)]
    pairs = [_pair(outcome) for outcome in found if isinstance(outcome, Example)]
    rejects = output.with_suffix(".rejects.txt").read_text(encoding="utf-8")
    if file.fault == "damaged":
        assert pairs == file.rows[: len(pairs)]
        assert "damaged" in rejects
    else:
        assert pairs == file.rows
        where = [f"{path}:{file.line}"] if file.fault == "line" else []
        assert [line.partition(": ")[0] for line in rejects.splitlines()] == where


# --- the commands that need a model ----------------------------------------------------------------------------


def _check_with_model(file: Odd, path: Path, model: Path, capsys) -> None:
    folder = path.with_name("model")
    shutil.copytree(model, folder)
    vectors, mined = path.with_name("v.npy"), path.with_name("mined")
    is_text, good = file.schema == "texts", file.fault == "none"
    code, said = _run(
        capsys, "encode", f"--model={folder}", f"--input={path}", f"--output={vectors}"
    )
    assert code == (0 if good and is_text else 3), said
    if code == 0:
        assert np.load(vectors).shape[0] == len(file.rows)
    code, said = _run(capsys, "calibrate", f"--model={folder}", f"--input={path}")
    assert code == (0 if good and is_text else 3), said
    records = small.write(
        path.with_name("records.jsonl"),
        [small.record(0, "ask", "reply"), small.record(1, "what", "that")],
    )
    given = [f"--input={path}"] if not is_text else [f"--input={records}", f"--corpus={path}"]
    code, said = _run(capsys, "mine", f"--model={folder}", f"--output={mined}", "--last=1", *given)
    right = (file.schema == "records" and good) or (is_text and (good or file.what in EMPTY_IDS))
    assert code == (0 if right else 3), said


# --- what all have in common -----------------------------------------------------------------------------------


def _pair(example: Example) -> tuple[str, str]:
    return example.query, example.positives[0]


def _output(action: str, path: Path) -> list[str]:
    return {
        "validate": [],
        "inspect": [f"--output={path}.html"],
        "clean": [f"--output={path}.clean"],
    }[action]


def _refused(file: Odd, path: Path, open_file) -> None:
    with pytest.raises(ConfigError) as caught:
        open_file()
    said = str(caught.value)
    assert (f"{path}:{file.line}: " if file.fault == "line" else str(path)) in said
    for line in said.split("\n  "):
        assert "\n" not in line
        assert len(line) < 1_000


def _run(capsys, *words: str) -> tuple[int, str]:
    """Exit code and all that a command says; it never dies of anything but what it was told."""
    capsys.readouterr()
    code = main(list(words))
    out = capsys.readouterr()
    assert "Traceback" not in out.err
    return code, out.out + out.err
