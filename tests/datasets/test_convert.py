import json
from pathlib import Path

import pytest

from e5jax.cli import main
from e5jax.data.source import ExampleSource, Needs
from e5jax.datasets.convert import convert, rejects_of
from e5jax.datasets.readers.result import Options
from e5jax.errors import ConfigError

FILES = Path(__file__).parent / "readers/files"


def test_what_is_written_is_a_source_of_examples_and_the_rest_has_a_reason(tmp_path):
    counts = convert(
        FILES / "dpr.json", tmp_path / "out/nq.jsonl", options=Options("find it", "en", "nq")
    )
    source = ExampleSource([tmp_path / "out/nq.jsonl"], Needs(negatives=1))
    assert [source[i].id for i in range(len(source))] == ["nq:1", "nq:2"]
    assert {(source[i].instruction, source[i].language, source[i].source) for i in range(2)} == {
        ("find it", "en", "nq")
    }
    rejects = rejects_of(tmp_path / "out/nq.jsonl")
    assert rejects.name == "nq.rejects.txt"
    assert rejects.read_text() == f"{FILES / 'dpr.json'}:69: positives: missing or empty\n"
    assert counts.examples == 2
    assert counts.rejected == {"positives": 1}


def test_counts_are_by_kind_of_reason(tmp_path):
    lines = [
        "no json",
        "nor this",
        '{"query": "q", "positives": ["p"]}',
        '{"query": " ", "positives": ["p"]}',
    ]
    (tmp_path / "x.jsonl").write_text("\n".join(lines))
    counts = convert(tmp_path / "x.jsonl", tmp_path / "y.jsonl", "e5jax")
    assert str(counts).split("\n") == [
        "1 examples, 3 rejected",
        "           2  not JSON",
        "           1  query",
    ]


def test_a_rejection_is_one_printable_line(tmp_path):
    bad = {"query": "q", "positives": ["p"], "language": "\u2028\n\x1b[31m\ud800"}
    (tmp_path / "x.jsonl").write_text(
        json.dumps(bad) + "\n" + json.dumps({"query": "q", "positives": ["p"]})
    )
    convert(tmp_path / "x.jsonl", tmp_path / "y.jsonl")
    text = (tmp_path / "y.rejects.txt").read_text()
    assert len(text.splitlines()) == 1
    assert text.rstrip("\n").isprintable()


def test_without_one_example_nothing_is_written_and_the_reasons_are_said(tmp_path):
    (tmp_path / "x.jsonl").write_text('{"query": "q", "positive": "p"}\n' * 3)
    convert(FILES / "tevatron.jsonl", tmp_path / "y.jsonl")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(
        ConfigError, match=r"x\.jsonl: not one example; 0 examples, 3 rejected\n +3  positive"
    ):
        convert(tmp_path / "x.jsonl", tmp_path / "y.jsonl", "e5jax")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_conversion_of_what_was_converted_changes_nothing(tmp_path):
    convert(FILES / "tevatron.jsonl", tmp_path / "a.jsonl", options=Options("task"))
    convert(tmp_path / "a.jsonl", tmp_path / "b.jsonl")
    assert (tmp_path / "a.jsonl").read_bytes() == (tmp_path / "b.jsonl").read_bytes()


def test_the_command_line_converts_and_says_what_it_left_out(tmp_path, capsys):
    (tmp_path / "x.csv").write_text("title,body\nq,p\n,p\n")
    words = [
        f"--input={tmp_path / 'x.csv'}",
        f"--output={tmp_path / 'y.jsonl'}",
        "--columns=query=title,positive=body",
    ]
    assert (
        main(
            [
                "data",
                "convert",
                "--from=pairs",
                "--instruction=find it",
                "--language=en",
                "--source=mine",
                *words,
            ]
        )
        == 0
    )
    out = capsys.readouterr().out
    assert out.startswith("1 examples, 1 rejected\n           1  query\n")
    assert str(tmp_path / "y.rejects.txt") in out
    (line,) = map(json.loads, (tmp_path / "y.jsonl").read_text().splitlines())
    wanted = {"schema": 1, "id": "mine:2", "query": "q", "positives": ["p"], "source": "mine"}
    assert wanted.items() <= line.items()
    assert line["instruction"] == "find it"


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["data"], 2, "--config=FILE is missing; or name an action: convert"),
        (["data", "convert", "--input=x"], 2, "--output"),
        (
            ["data", "convert", "--input=none.jsonl", "--output=y"],
            3,
            "none.jsonl: no such file or folder",
        ),
        (
            ["data", "convert", "--from=csv", "--input=x", "--output=y"],
            3,
            "format 'csv': there is none; use one of",
        ),
        (
            ["data", "convert", "--input=x", "--output=y", "--config.seed=1"],
            3,
            "`e5jax data convert` takes no --config",
        ),
        (
            ["data", "--config=z", "convert", "--input=x", "--output=y"],
            3,
            "--config=z: `e5jax data convert` takes no --config",
        ),
    ],
)
def test_wrong_words_are_refused_with_their_exit_code(
    words, code, said, capsys, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    try:
        found = main(words)
    except SystemExit as stopped:
        found = stopped.code
    assert found == code
    assert said in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
