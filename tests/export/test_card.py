"""The model card says what was trained, on what, and how to use it; its code runs."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer

from e5jax.config import Data, Harvest, Loss
from e5jax.config.mixture import Dataset, Mixture
from e5jax.data.tokenizer import TextTokenizer
from e5jax.export.card import model_card, with_scores
from e5jax.export.folder import write
from e5jax.export.trained_model import Choice, TrainedModel
from e5jax.report.results import Results, Task, write_results
from e5jax.workdir.directory import Workdir
from tests import tiny
from tests.export import small

MANIFEST = {
    "title": "HotpotQA",
    "licence": "CC BY-SA 4.0",
    "published": ["http://example.org/hotpot.json"],
    "examples": 1234567,
    "languages": {"en": 1234567},
}
CLEAN = {
    "examples": 500,
    "kept": 480,
    "rejected": {},
    "removed": {
        "contamination": {"equal": {"query": 12}, "near": {"positive": 3}},
        "duplicate": {"equal": {"query": 5}},
    },
    "evaluation_texts": 77,
    "rules": {"threshold": 0.8, "share": 0.7},
}
RESULTS = Results(
    "trained",
    {"SciFact": Task("Retrieval", ("test",), ("default",))},
    {"trained": {"SciFact": {"main_score": 0.5, "ndcg_at_10": 0.61239}}},
)


@pytest.fixture
def place(tmp_path) -> Path:
    prepared = tmp_path / "hotpot/1.0.0"
    prepared.mkdir(parents=True)
    (prepared / "manifest.json").write_text(json.dumps(MANIFEST))
    (tmp_path / "cleaned/data").mkdir(parents=True)
    (tmp_path / "cleaned/data/own.jsonl").write_text("{}\n")
    (tmp_path / "cleaned/clean.json").write_text(json.dumps(CLEAN))
    write_results(tmp_path / "results.json", RESULTS)
    return tmp_path


def mixed(place: Path) -> Data:
    sets = {
        "hotpotqa": Dataset(
            (str(place / "hotpot"),),
            ratio=0.5,
            instructions=("Given a question", "Find it"),
            negatives=3,
        ),
        "own": Dataset(
            (str(place / "cleaned/data/*.jsonl"),),
            temperature=0.05,
            in_batch=False,
            query_tokens=16,
            symmetric=True,
        ),
        "eli5": Dataset((str(place / "gone.jsonl"),), ratio=0.1),
    }
    return Data(mixture=Mixture(sets))


def card(place: Path | None = None, choice: Choice = Choice(), **parts: object) -> str:  # noqa: B008
    run = small.run(
        **{
            "base": "mistralai/Mistral-7B-v0.1",
            **{k: v for k, v in parts.items() if k in ("lora", "dtype")},
        }
    )
    run.data = parts.get("data", run.data)
    run.loss, run.batch.positives = parts.get("loss", run.loss), parts.get("positives", 1)
    run.model.rounding = parts.get("rounding", "float32")
    of = tiny.made(small.spec(), run.lora)
    return model_card(
        TrainedModel(run, Path("base"), of, {}, small.tokenizer(), 9),
        choice,
        Workdir(place) if place else None,
    )


def rows(text: str) -> dict[str, list[str]]:
    """Cells of all table rows by the first of them."""
    lines = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in text.splitlines()
        if line.startswith("| ")
    ]
    return {cells[0]: cells[1:] for cells in lines}


def test_every_set_has_its_own_numbers_licence_and_instructions(place):
    text = card(place, data=mixed(place))
    found = rows(text)
    assert found["hotpotqa"] == [
        "HotpotQA",
        "1,234,567",
        "0.5",
        "0.02",
        "3",
        "yes",
        "64 / 64",
        "CC BY-SA 4.0",
    ]
    assert found["own"] == ["*.jsonl", "", "1", "0.05", "1", "no", "16 / 64", "not recorded"]
    assert found["eli5"] == [
        "ELI5",
        "",
        "0.1",
        "0.02",
        "1",
        "yes",
        "64 / 64",
        "unknown",
    ]  # its files are gone
    for line in (
        "Shares: the part of its examples in an epoch; interleaved order, mixed batches.",
        "- hotpotqa: instruction `Find it`",
        "- hotpotqa: from http://example.org/hotpot.json",
        "- eli5: from http://dl.fbaipublicfiles.com/KILT/eli5-train-kilt.jsonl",
    ):
        assert line in text.splitlines()
    assert 'language: ["en"]' in text


def test_decontamination_and_scores_are_those_of_the_files(place):
    text = card(place, data=mixed(place))
    assert (
        "500 examples looked through for 77 evaluation texts: 480 kept; removed: 15 as contamination, 5 as duplicate"
        in text
    )
    assert "Jaccard similarity 0.8" in text
    assert rows(text)["SciFact (test)"] == ["trained", "main_score 0.5000, ndcg_at_10 0.6124"]
    results = (place / "results.json").read_text()
    (place / "later.json").write_text(results.replace("0.61239", "0.71239"))
    later = with_scores(text, place / "later.json")
    assert later == text.replace("0.6124", "0.7124") != text
    assert with_scores(later, place / "results.json") == text
    (place / "results.json").unlink()
    (place / "cleaned/clean.json").unlink()
    text = card(place, data=mixed(place))
    assert "## Scores" not in text
    assert "no report of a cleaning lies beside the training files" in text


def test_the_recipe_is_the_configuration(place):
    found = rows(card(place))
    assert found["start"] == ["mistralai/Mistral-7B-v0.1"]
    assert found["trained"] == ["LoRA r=4, alpha=8, dropout=0 on q, k, v, o, gate, up, down"]
    assert found["step"] == ["9 of 9"]
    assert found["batch"] == [
        "2048 queries over all devices, each with a positive; hard negatives: 1"
    ]
    assert found["optimiser"] == ["AdamW, rate 0.0001, weight decay 0.1, gradient norm 1"]
    assert found["loss"] == [
        "InfoNCE over cosine / 0.02, in-batch negatives and hard ones, query to document"
    ]
    assert rows(card(place, lora=None))["trained"] == ["all parameters"]
    harvested = card(place, data=Data(harvest=Harvest()))
    assert (
        rows(harvested)["train"][0]
        == "docstring and function pairs harvested from installed Python packages"
    )


def test_every_switch_of_the_objective_that_is_on_is_in_the_recipe_and_no_other(place):
    before = rows(card(place))
    loss = Loss(
        0.05,
        directions=("query_to_doc", "query_to_query"),
        mask_duplicates=True,
        margin=0.95,
        margin_kind="ratio",
        smoothing=0.1,
    )
    loss.hardness_strength, loss.hardness_mode, loss.dimensions, loss.weights, loss.bounds = (
        9.0,
        "hard_negatives",
        (64, 16),
        (1.0, 0.5),
        (0.01, 0.1),
    )
    found = rows(card(place, loss=loss, rounding="binary", positives=3))
    changed = {name: cells[0] for name, cells in found.items() if before.get(name) != cells}
    assert changed.pop("train")  # its temperature is the run's
    assert changed == {
        "batch": "2048 queries over all devices, each with up to 3 positives, a pair each; hard negatives: 1",
        "loss": "InfoNCE over cosine / 0.05, in-batch negatives and hard ones, query to document, query to other queries; "
        "one softmax over all",
        "temperature": "learned from 0.05 on, between 0.01 and 0.1",
        "no negatives": "texts like the query or a positive of it, and what belongs to these; "
        "texts with a cosine above the positive's times 0.95",
        "hardness": "9 × cosine, without a gradient, added to the logit of the query's own hard negatives",
        "label smoothing": "0.1 of the target over all candidates",
        "prefixes": "the loss is a sum over leading dimensions, each of length 1 again, by weight: 64 × 1, 16 × 0.5",
        "rounding": "vectors as binary in the loss, gradients as if they were not rounded",
    }


def test_the_head_names_base_and_kind_for_the_hub():
    merged, adapter = (card(choice=Choice(kind)).split("---")[1] for kind in ("merged", "adapter"))
    for head, kind in ((merged, "finetune"), (adapter, "adapter")):
        assert "base_model: mistralai/Mistral-7B-v0.1\n" in head
        assert f"base_model_relation: {kind}\n" in head
    assert "peft" in adapter
    assert "peft" not in merged
    assert "This folder holds an adapter; its base is `mistralai/Mistral-7B-v0.1`." in card(
        choice=Choice("adapter")
    )


def test_the_card_names_bos_and_eos_as_the_tokenizer_does():
    pieces = small.tokenizer().tokenizer
    pieces = Tokenizer.from_str(
        pieces.to_str().replace("<s>", "<|begin|>").replace("</s>", "<|end|>")
    )
    subject = TrainedModel(
        small.run(),
        Path("base"),
        tiny.made(small.spec()),
        {},
        TextTokenizer(pieces, 1, 2, small.LIMIT),
        9,
    )
    text = model_card(subject, Choice())
    assert "Every text is `<|begin|> … <|end|>`" in text
    assert "`<|begin|>` and `<|end|>` included" in text
    assert "<s>" not in text
    assert "</s>" not in text


def test_a_folder_that_was_not_verified_says_so():
    assert "written without being verified" in card(choice=Choice(verify=False))
    assert "written without being verified" not in card()


@pytest.mark.filterwarnings(tiny.PEFT_WARNING)
def test_the_code_of_the_card_runs_and_gives_one_similarity(tmp_path, capsys):
    subject = small.adapted(small.base(tmp_path / "base", small.spec()), small.spec())
    folder = tmp_path / "adapter"
    write(subject, folder, Choice("adapter", verify=False))
    blocks = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
    assert len(blocks) == 3
    for block in blocks:
        with torch.inference_mode():
            exec(block.replace('"this-folder"', repr(str(folder))), {})  # noqa: S102  it is what users will run
    printed = [float(number) for number in re.findall(r"-?\d\.\d+", capsys.readouterr().out)]
    assert len(printed) == 3
    np.testing.assert_allclose(printed, printed[0], atol=2e-4)  # as printed
