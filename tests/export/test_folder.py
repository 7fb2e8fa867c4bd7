"""What an exported folder holds: merged numbers, adapters under PEFT's names, ids with BOS and EOS, and no code."""

import json
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file

from e5jax.checkpoint.checkpointer import Checkpoints
from e5jax.checkpoint.retention import Retention
from e5jax.config import Model
from e5jax.errors import ConfigError
from e5jax.export.folder import export, write
from e5jax.export.trained_model import Choice, TrainedModel
from e5jax.inference.embedder import Embedder
from e5jax.inference.folder_settings import read_settings
from e5jax.model import hf_weights
from e5jax.model.families import read_spec
from e5jax.workdir.directory import Workdir
from e5jax.workdir.outputs import LIST
from tests import tiny
from tests.export import small
from tests.export.small import UNVERIFIED

TEXTS = [
    "",
    " ",
    "hello world",
    "日本語のテキスト",
    "</s>",
    "<s> inside </s> a text <unk>",
    "line\nbreaks\tand  spaces ",
    "word " * 400,
]
NAME = "layers.1.mlp.gate_proj"


@pytest.fixture(scope="module")
def subject(tmp_path_factory) -> TrainedModel:
    root = tmp_path_factory.mktemp("export")
    return small.adapted(small.base(root / "base", small.spec()), small.spec())


@pytest.fixture(scope="module")
def merged(subject) -> Path:
    folder = subject.base.with_name("merged")
    write(subject, folder, UNVERIFIED)
    return folder


def test_ids_have_one_bos_and_one_eos_and_keep_the_limit(merged):
    ours = Embedder.from_pretrained(merged)
    for ids in ours.tokenize(TEXTS, small.TASK):
        assert ids[0] == 1
        assert ids[-1] == 2
        assert ids.count(1) == ids.count(2) == 1
        assert len(ids) <= small.LIMIT


def test_merged_weights_are_the_base_plus_the_scaled_product(subject, merged):
    base, found = (hf_weights.headers(folder) for folder in (subject.base, merged))
    a, b = (
        np.asarray(subject.parameters[f"layers/ff/gate/{factor}"][1])
        for factor in ("lora_a", "lora_b")
    )
    np.testing.assert_allclose(
        hf_weights.read(found[f"{NAME}.weight"]),
        hf_weights.read(base[f"{NAME}.weight"]) + 2.0 * (a @ b).T,
        atol=1e-6,
    )
    np.testing.assert_array_equal(
        hf_weights.read(found["embed_tokens.weight"]), hf_weights.read(base["embed_tokens.weight"])
    )


def test_bfloat16_is_rounded_once_from_the_merged_float32(subject, merged, tmp_path):
    half = subject._replace(run=small.run(dtype="bfloat16"))
    write(half, tmp_path / "half", Choice(shard_bytes=50_000, verify=False))
    assert len(hf_weights.model_files(tmp_path / "half")) > 3
    assert read_settings(tmp_path / "half").dtype == "bfloat16"
    wide, narrow = hf_weights.headers(merged), hf_weights.headers(tmp_path / "half")
    assert wide.keys() == narrow.keys()
    for name, tensor in wide.items():
        np.testing.assert_array_equal(
            hf_weights.read(narrow[name]), hf_weights.read(tensor).astype(ml_dtypes.bfloat16)
        )


def test_an_adapter_folder_has_the_factors_and_nothing_of_the_base(subject, tmp_path):
    write(subject, tmp_path / "adapter", Choice("adapter", base_name="owner/base", verify=False))
    found = load_file(tmp_path / "adapter/adapter_model.safetensors")
    assert len(found) == 2 * 7 * subject.made.spec.layers
    for factor, name in (("lora_a", "lora_A"), ("lora_b", "lora_B")):
        ours = np.asarray(subject.parameters[f"layers/ff/gate/{factor}"][1])
        np.testing.assert_array_equal(found[f"base_model.model.{NAME}.{name}.weight"], ours.T)
    config = json.loads((tmp_path / "adapter/adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"], config["base_model_name_or_path"]) == (
        4,
        8.0,
        "owner/base",
    )
    assert not (
        tmp_path / "adapter/config.json"
    ).exists()  # transformers would take the folder for a whole model


def test_nothing_in_the_folder_is_code_or_pickle(merged):
    assert {path.suffix for path in merged.rglob("*") if path.is_file() and path.name != LIST} == {
        ".json",
        ".safetensors",
        ".md",
    }


def test_exporting_without_a_checkpoint_names_the_directory(subject, tmp_path):
    with pytest.raises(ConfigError, match="no sound checkpoint"):
        export(
            subject.run, None, small.spec(), subject.tokenizer, Workdir(tmp_path), tmp_path / "out"
        )
    assert not (tmp_path / "out").exists()


def test_a_checkpoint_is_merged_into_its_base(subject, merged, tmp_path):
    with Checkpoints(tmp_path / "checkpoints", Retention(1)) as checkpoints:
        checkpoints.save(7, dict(subject.parameters), {"step": np.int32(7)}, {})
    spec = read_spec(subject.base)
    step = export(
        subject.run,
        subject.base,
        spec,
        subject.tokenizer,
        Workdir(tmp_path),
        tmp_path / "out",
        UNVERIFIED,
    )
    assert step == 7
    assert (tmp_path / "out/model.safetensors").read_bytes() == (
        merged / "model.safetensors"
    ).read_bytes()


@pytest.mark.parametrize(
    ("lora", "model", "words"),
    [
        (None, Model(), "trained all parameters"),
        (tiny.LORA, Model(theta=5.0, window=3), "changed theta, window of its base"),
    ],
)
def test_what_an_adapter_folder_cannot_hold_is_refused(subject, tmp_path, lora, model, words):
    spec = small.spec().changed(model)
    with pytest.raises(ConfigError, match=f"--format=adapter: .*{words}.*--format=merged"):
        export(
            small.run(lora=lora),
            subject.base,
            spec,
            subject.tokenizer,
            Workdir(tmp_path),
            tmp_path / "out",
            Choice("adapter"),
        )
