"""Mining from end to end: against brute force, killed and restarted, and through the command line with a model."""

import hashlib
import json
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest

from e5jax.cli import main
from e5jax.errors import ConfigError
from e5jax.mine.mine import mine
from e5jax.mine.settings import Mining
from e5jax.workdir.outputs import LIST
from tests.config.test_load import ROOT
from tests.mine import small

KILLED = """
import os, signal, sys
from pathlib import Path
from e5jax.mine.mine import mine
from e5jax.mine.settings import Mining
from tests.mine import small

class Dies(small.Hashing):
    def encode(self, texts, *, prompt=None):
        if len(self.calls) == {calls}:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().encode(texts)

mine(Dies(), "model", Path({records!r}), Path({corpus!r}), Path({output!r}), Mining(shard=16))
"""


def digest(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def tree(folder: Path) -> dict[str, bytes]:
    return {
        str(file.relative_to(folder)): file.read_bytes()
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }


def check_counts(report: dict) -> None:
    """What became of every candidate is said, and every score is counted."""
    negatives = sum(
        int(number) * count for number, count in report["examples_by_negatives"].items()
    )
    assert report["negatives"] == negatives
    assert report["candidates"] == sum(report["candidates_dropped"].values()) + negatives
    for scores in report["scores"].values():
        assert sum(scores["negatives"]) == negatives
        assert len(scores["edges"]) == len(scores["negatives"]) + 1
    model = report["scores"]["model"]
    assert (sum(model["candidates"]), sum(model["positives"])) == (
        report["candidates"],
        report["examples"],
    )


def test_negatives_are_those_of_brute_force(tmp_path):
    records, corpus = small.task(tmp_path)
    rules = Mining(negatives=3, first=2, last=60, relative_margin=0.02)
    report = mine(small.Hashing(), "model", records, corpus, tmp_path / "out", rules)
    texts = list(dict.fromkeys(line["text"] for line in small.read(corpus)))
    wanted = {}
    for given in small.read(records):
        query, positive = small.vector(given["query"]), small.vector(given["positives"][0])
        ranked = sorted(
            (text for text in texts if text != given["positives"][0]),
            key=lambda text: -(small.vector(text) @ query),
        )
        most = positive @ query - 0.02 * abs(positive @ query)
        fit = [text for text in ranked[1:60] if small.vector(text) @ query <= most]
        if len(fit) >= 3:
            wanted[given["id"]] = fit[:3]
    mined = small.read(tmp_path / "out/mined.jsonl")
    assert 5 < len(wanted) < 20
    assert {line["id"]: line["negatives"] for line in mined} == wanted
    for line in mined:
        query = small.vector(line["query"])
        np.testing.assert_allclose(
            line["negative_scores"],
            [small.vector(text) @ query for text in line["negatives"]],
            rtol=1e-5,
        )
        np.testing.assert_allclose(
            line["positive_scores"], [small.vector(line["positives"][0]) @ query], rtol=1e-5
        )
    assert report == json.loads((tmp_path / "out/report.json").read_text())
    assert (
        report["examples"],
        report["written"],
        report["corpus"],
        report["corpus_duplicates"],
    ) == (20, len(wanted), 90, 10)
    assert report["short"] == {"examples": 20 - len(wanted), "action": "drop"}
    check_counts(report)


def test_positives_of_the_same_query_the_query_and_the_text_of_its_id_are_never_negatives(tmp_path):
    given = [
        small.record(0, "abc", "aabbcc"),
        small.record(1, "abc", "abcc"),
        small.record(2, "def", "ddeeff"),
    ]
    corpus = [{"text": text} for text in ("aabbcc", "abcc", "abc", "abcd", "ddeeff", "def", "defg")]
    corpus.append({"_id": "r2", "text": "deff"})
    files = small.write(tmp_path / "r.jsonl", given), small.write(tmp_path / "c.jsonl", corpus)
    mine(
        small.Hashing(),
        "model",
        *files,
        tmp_path / "out",
        Mining(negatives=7, last=7, short="keep"),
    )
    found = {
        line["id"]: set(line["negatives"]) for line in small.read(tmp_path / "out/mined.jsonl")
    }
    assert found["r0"] == found["r1"] == {"abcd", "ddeeff", "def", "defg", "deff"}
    assert found["r2"] == {"aabbcc", "abcc", "abc", "abcd", "defg"}


def test_without_a_corpus_the_records_passages_are_mined(tmp_path):
    given = [
        small.record(i, text, f"{text} positive", [f"{text} negative"])
        for i, text in enumerate(small.words(5))
    ]
    records = small.write(tmp_path / "r.jsonl", given)
    report = mine(
        small.Hashing(), "model", records, None, tmp_path / "out", Mining(negatives=2, last=9)
    )
    known = {text for line in given for text in (*line["positives"], *line["negatives"])}
    assert report["corpus"] == len(known) == 10
    for line in small.read(tmp_path / "out/mined.jsonl"):
        assert len(set(line["negatives"])) == 2
        assert set(line["negatives"]) < known - set(line["positives"])


def test_another_model_text_or_instruction_is_embedded_anew_and_nothing_else(tmp_path):
    records, corpus = small.task(tmp_path)

    def embedded(identity: str = "model", **changed: str) -> int:
        hashing = small.Hashing()
        mine(hashing, identity, records, corpus, tmp_path / "out", Mining(**changed))
        return sum(map(len, hashing.calls))

    queries, passages, positives = 20, 90, 10
    assert embedded() == queries + passages + positives
    assert embedded() == embedded(pick="random") == 0
    assert embedded(instruction="Find it") == queries
    assert embedded("other") == queries + passages + positives
    small.write(corpus, [*small.read(corpus)[:-10], {"text": "another"}])
    assert embedded() == passages + 1


def test_a_killed_run_loses_at_most_one_shard_and_ends_as_if_it_had_not_been_killed(tmp_path):
    records, corpus = small.task(tmp_path)
    straight = small.Hashing()
    mine(straight, "model", records, corpus, tmp_path / "straight", Mining(shard=16))
    code = KILLED.format(
        calls=4, records=str(records), corpus=str(corpus), output=str(tmp_path / "out")
    )
    killed = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=False
    )
    assert killed.returncode == -9
    assert len(list((tmp_path / "out").rglob("*.npy"))) == 4
    again = small.Hashing()
    mine(again, "model", records, corpus, tmp_path / "out", Mining(shard=16))
    assert again.calls == straight.calls[4:]  # the fifth was under way
    left = {name: content for name, content in tree(tmp_path / "out").items() if "/." not in name}
    straight_files = tree(tmp_path / "straight")
    for files in (left, straight_files):  # when they were written
        del files[LIST]
    assert left == straight_files


def test_a_teacher_rules_out_what_it_finds_relevant_and_its_scores_are_written(tmp_path):
    records, corpus = small.task(tmp_path)
    first = mine(
        small.Hashing(),
        "model",
        records,
        corpus,
        tmp_path / "out",
        Mining(negatives=50, last=50, short="keep"),
    )
    check_counts(first)
    said = {}
    for line in small.read(tmp_path / "out/mined.jsonl"):
        for text in (*line["positives"], *line["negatives"][:40]):
            said[line["id"], text] = zlib.crc32(f"{line['query']} {text}".encode()) % 1000 / 100 - 5
    hashed = [
        {"id": name, "hash": digest(text), "score": score} for (name, text), score in said.items()
    ]
    plain = [
        {"id": name, "text": text, "score": score, "why": ""}
        for (name, text), score in said.items()
    ]
    scores = small.write(tmp_path / "scores.jsonl", hashed[::2] + plain[1::2] + plain[:3])
    rules = Mining(
        negatives=3,
        last=50,
        scores=str(scores),
        teacher_absolute_margin=2.0,
        teacher_min_score=-4.0,
    )
    hashing = small.Hashing()
    report = mine(hashing, "model", records, corpus, tmp_path / "out", rules)
    assert not hashing.calls
    check_counts(report)
    assert report["candidates_dropped"]["teacher_missing"] == 20 * 10
    mined = {line["id"]: line for line in small.read(tmp_path / "out/mined.jsonl")}
    assert 5 < len(mined) < 20
    for given in small.read(records):
        query, (positive,) = small.vector(given["query"]), given["positives"]
        texts = [text for (name, text) in said if name == given["id"] and text != positive]
        texts.sort(key=lambda text: -(small.vector(text) @ query))
        most = said[given["id"], positive] - 2
        fit = [text for text in texts if -4 <= said[given["id"], text] <= most][:3]
        assert (given["id"] in mined) == (len(fit) == 3)
        if line := mined.get(given["id"]):
            assert line["negatives"] == fit
            assert line["negative_scores"] == [said[given["id"], text] for text in fit]
            assert line["positive_scores"] == [said[given["id"], positive]]


def test_the_command_mines_with_a_model_folder_and_prints_what_became_of_the_candidates(
    tmp_path, capsys
):
    model = small.model_folder(tmp_path / "model")
    records, corpus = small.task(tmp_path)
    scores = small.write(
        tmp_path / "s.jsonl", [{"id": "r3", "text": small.words(90)[0], "score": 1.5}]
    )
    words = [
        f"--model={model}",
        f"--input={records}",
        f"--corpus={corpus}",
        f"--output={tmp_path / 'out'}",
        "--last=90",
    ]
    assert (
        main(["mine", *words, "--instruction=Find it", "--relative-margin=0", "--negatives=2"]) == 0
    )
    mined = small.read(tmp_path / "out/mined.jsonl")
    assert mined
    assert f"{len(mined)} of 20 records" in capsys.readouterr().out
    assert all(
        score <= line["positive_scores"][0] for line in mined for score in line["negative_scores"]
    )
    teacher = [f"--scores={scores}", "--teacher-max-score=1", "--short=keep", "--first=2"]
    assert main(["mine", *words, "--instruction=Find it", *teacher]) == 0
    printed = capsys.readouterr().out.splitlines()
    numbers = {line[:26].strip(): line[26:38].strip() for line in printed[:-1]}
    assert numbers["candidates"] == "1,790"  # half of the positives are in the corpus
    assert (numbers["rank"], numbers["teacher max score"], numbers["teacher missing"]) == (
        "-20",
        "-1",
        "-1,769",
    )
    assert numbers["negatives"] == "0"
    columns = [line.split()[-3:] for line in printed if " to " in line and "records" not in line]
    assert [sum(int(row[kind].replace(",", "")) for row in columns) for kind in range(3)] == [
        20,
        1_790 + 1,
        0,
    ]


def test_scores_of_no_record_are_refused_before_anything_is_embedded(tmp_path):
    records, corpus = small.task(tmp_path)
    scores = small.write(tmp_path / "s.jsonl", [{"id": "q1", "text": "a", "score": 1}])
    hashing = small.Hashing()
    with pytest.raises(
        ConfigError, match=r"s\.jsonl: no id in it is the id of a record, such as 'r0'"
    ):
        mine(hashing, "model", records, corpus, tmp_path / "out", Mining(scores=str(scores)))
    assert not hashing.calls


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ("--negatives=0", "--negatives=0"),
        ("--model=nowhere/at/all", "nowhere/at/all"),
        ("--input=missing.jsonl", "missing.jsonl"),
        ("--corpus=missing.jsonl", "missing.jsonl"),
        ("--scores=missing.jsonl", "missing.jsonl"),
    ],
)
def test_what_is_wrong_with_the_command_is_one_line_and_exit_code_3(
    changed, named, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    records, corpus = small.task(tmp_path)
    words = ["--model=model", f"--input={records}", f"--corpus={corpus}", "--output=out", changed]
    assert main(["mine", *words]) == 3
    (line,) = capsys.readouterr().err.splitlines()
    assert named in line
