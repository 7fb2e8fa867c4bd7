"""From a model's replies to a training step, by the commands that users run: synth, mine, synth for relabelling, run."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from e5jax.cli import main
from e5jax.data.records import Example, parse_example
from e5jax.data.tokenizer import train_tokenizer
from tests.config.test_load import QUICK, ROOT
from tests.flags import FAST
from tests.mine import small
from tests.synth.test_commands import requests_of, words

# The quickstart's first stage, one step of it, smaller, and with hard negatives.
STEP = [
    f"--config.{override}"
    for override in [
        "stages=('pretrain',)",
        "pretrain.optim.steps=1",
        "pretrain.optim.warmup_steps=0",
        "pretrain.tokens.limit=32",
        "pretrain.model.scratch.hidden=32",
        "pretrain.model.scratch.ff=64",
        "pretrain.model.scratch.layers=1",
        "pretrain.model.scratch.head_size=8",
        "pretrain.batch.queries=32",
        "pretrain.batch.negatives=1",
    ]
]


@pytest.fixture(scope="module")
def generated(address, tmp_path_factory) -> Path:
    """Examples of all families, many of them of the one that has no hard negatives."""
    output = tmp_path_factory.mktemp("chain") / "generated"
    assert main(words(address, output, "examples=80", "families.short_short.share=500")) == 0
    return output / "examples"


@pytest.fixture(scope="module")
def mined(generated, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("mined")
    model = small.model_folder(folder / "model")
    command = [
        "mine",
        f"--model={model}",
        f"--input={generated / 'short-short.jsonl'}",
        f"--output={folder}",
    ]
    assert main([*command, "--negatives=5", "--last=20"]) == 0
    return folder / "mined.jsonl"


def read(path: Path) -> list[Example]:
    return [parse_example(line, path.name) for line in path.read_text("utf-8").splitlines()]


def test_what_was_generated_without_hard_negatives_is_mined(generated, mined):
    source, found = read(generated / "short-short.jsonl"), read(mined)
    assert [example.query for example in found] == [example.query for example in source]
    positives = {text for example in source for text in example.positives}
    for example in found:
        assert len({*example.positives, *example.negatives}) == 6
        assert set(example.negatives) <= positives


def test_a_model_grades_what_was_mined_and_the_best_pair_stays(mined, address, tmp_path):
    before = {example.id: example for example in read(mined)}
    assert main(words(address, tmp_path, "relabel=build", f"relabel.files=('{mined}',)")) == 0
    found = json.loads((tmp_path / "stats.json").read_text("utf-8"))
    counted = found["families"]["relabel"]
    assert (
        counted["asked"]
        == len(before)
        == counted["kept"] + counted["dropped"]
        == requests_of(tmp_path)
    )
    assert set(found["dropped_for"]) <= {"no-positive", "no-negative"}
    made = read(tmp_path / "examples/relabel.jsonl")
    assert len(made) == counted["kept"] > 5
    for example in made:
        given = before[example.id]
        assert {*example.positives, *example.negatives} < {*given.positives, *given.negatives}
        assert example.positive_scores[0] >= 4
        assert example.negative_scores[0] <= 2
    assert any(
        example.positives != before[example.id].positives for example in made
    )  # the demo grades as it likes


def test_generated_and_mined_examples_train_the_quickstart_model(generated, mined, tmp_path):
    files = [mined, *(path for path in sorted(generated.iterdir()) if read(path)[0].negatives)]
    assert len(files) > 2
    tokenizer = tmp_path / "tokenizer.json"
    train_tokenizer((example.query for path in files for example in read(path)), 500).save(
        str(tokenizer)
    )
    data = [
        f"--config.pretrain.data.files={tuple(map(str, files))}",
        f"--config.pretrain.tokens.tokenizer={tokenizer}",
    ]
    command = [
        sys.executable,
        "-m",
        "e5jax",
        "run",
        f"--config={QUICK}",
        f"--workdir={tmp_path / 'run'}",
        *STEP,
        *data,
    ]
    environment = {**os.environ, "XLA_FLAGS": FAST}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr
    (step,) = [
        json.loads(line)
        for line in (tmp_path / "run/pretrain/metrics.jsonl").read_text("utf-8").splitlines()
    ]
    assert step["step"] == 1
    assert step["train/pairs"] == 32
    assert 0 < step["train/loss"] < 100  # at a temperature of 0.02
