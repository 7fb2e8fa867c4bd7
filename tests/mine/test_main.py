"""Mining from end to end: against brute force, killed and restarted, and through the command line with a model."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from e5jax.__main__ import main
from e5jax.mine.main import mine
from e5jax.mine.settings import Mining
from tests.mine import small
from tests.test_loading import ROOT

KILLED = """
import os, signal, sys
from pathlib import Path
from e5jax.mine.main import mine
from e5jax.mine.settings import Mining
from tests.mine import small

class Dies(small.Hashing):
    def encode(self, texts):
        if len(self.calls) == {calls}:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().encode(texts)

mine(Dies(), "model", Path({records!r}), Path({corpus!r}), Path({output!r}), Mining(shard=16))
"""


def tree(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


def test_negatives_are_those_of_brute_force(tmp_path):
    records, corpus = small.task(tmp_path)
    rules = Mining(negatives=3, first=2, last=60, relative_margin=0.02)
    report = mine(small.Hashing(), "model", records, corpus, tmp_path / "out", rules)
    texts = list(dict.fromkeys(line["text"] for line in small.read(corpus)))
    wanted = {}
    for given in small.read(records):
        query, positive = small.vector(given["query"]), small.vector(given["positives"][0])
        ranked = sorted((text for text in texts if text != given["positives"][0]), key=lambda text: -(small.vector(text) @ query))
        most = positive @ query - 0.02 * abs(positive @ query)
        fit = [text for text in ranked[1:60] if small.vector(text) @ query <= most]
        if len(fit) >= 3:
            wanted[given["id"]] = fit[:3]
    mined = small.read(tmp_path / "out/mined.jsonl")
    assert 5 < len(wanted) < 20
    assert {line["id"]: line["negatives"] for line in mined} == wanted
    for line in mined:
        query = small.vector(line["query"])
        np.testing.assert_allclose(line["negative_scores"], [small.vector(text) @ query for text in line["negatives"]], rtol=1e-5)
        np.testing.assert_allclose(line["positive_scores"], [small.vector(line["positives"][0]) @ query], rtol=1e-5)
    assert report == json.loads((tmp_path / "out/report.json").read_text())
    assert (report["examples"], report["written"], report["corpus"], report["corpus_duplicates"]) == (20, len(wanted), 90, 10)
    assert report["short"] == {"examples": 20 - len(wanted), "action": "drop"}
    assert sum(report["scores"]["negatives"]) == sum(int(n) * count for n, count in report["examples_by_negatives"].items())


def test_positives_of_the_same_query_the_query_and_the_text_of_its_id_are_never_negatives(tmp_path):
    given = [small.record(0, "abc", "aabbcc"), small.record(1, "abc", "abcc"), small.record(2, "def", "ddeeff")]
    corpus = [{"text": text} for text in ("aabbcc", "abcc", "abc", "abcd", "ddeeff", "def", "defg")]
    corpus.append({"_id": "r2", "text": "deff"})
    files = small.write(tmp_path / "r.jsonl", given), small.write(tmp_path / "c.jsonl", corpus)
    mine(small.Hashing(), "model", *files, tmp_path / "out", Mining(negatives=7, last=7, short="keep"))
    found = {line["id"]: set(line["negatives"]) for line in small.read(tmp_path / "out/mined.jsonl")}
    assert found["r0"] == found["r1"] == {"abcd", "ddeeff", "def", "defg", "deff"}
    assert found["r2"] == {"aabbcc", "abcc", "abc", "abcd", "defg"}


def test_without_a_corpus_the_records_passages_are_mined(tmp_path):
    given = [small.record(i, text, f"{text} positive", [f"{text} negative"]) for i, text in enumerate(small.words(5))]
    records = small.write(tmp_path / "r.jsonl", given)
    report = mine(small.Hashing(), "model", records, None, tmp_path / "out", Mining(negatives=2, last=9))
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
    code = KILLED.format(calls=4, records=str(records), corpus=str(corpus), output=str(tmp_path / "out"))
    killed = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=False)
    assert killed.returncode == -9
    assert len(list((tmp_path / "out").rglob("*.npy"))) == 4
    again = small.Hashing()
    mine(again, "model", records, corpus, tmp_path / "out", Mining(shard=16))
    assert again.calls == straight.calls[4:]  # the fifth was under way
    left = {name: content for name, content in tree(tmp_path / "out").items() if "/." not in name}
    assert left == tree(tmp_path / "straight")


def test_the_command_mines_with_a_model_folder(tmp_path, capsys):
    model = small.model_folder(tmp_path / "model")
    records, corpus = small.task(tmp_path)
    words = [f"--model={model}", f"--input={records}", f"--corpus={corpus}", f"--output={tmp_path / 'out'}", "--negatives=2"]
    assert main(["mine", *words, "--instruction=Find it", "--relative-margin=0"]) == 0
    printed = capsys.readouterr().out
    mined = small.read(tmp_path / "out/mined.jsonl")
    assert f"{len(mined)} of 20 records" in printed
    assert mined
    assert all(score <= line["positive_scores"][0] for line in mined for score in line["negative_scores"])


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ("--negatives=0", "--negatives=0"),
        ("--model=nowhere/at/all", "nowhere/at/all"),
        ("--input=missing.jsonl", "missing.jsonl"),
        ("--corpus=missing.jsonl", "missing.jsonl"),
    ],
)
def test_what_is_wrong_with_the_command_is_one_line_and_exit_code_3(changed, named, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    model = small.model_folder(tmp_path / "model") if changed.startswith("--corpus") else "model"
    records, corpus = small.task(tmp_path)
    words = [f"--model={model}", f"--input={records}", f"--corpus={corpus}", "--output=out", changed]
    assert main(["mine", *words]) == 3
    (line,) = capsys.readouterr().err.splitlines()
    assert named in line
