"""Training goes on from a folder as it is, says what the run sets differently, or refuses what it would lose."""

import json
from pathlib import Path

import pytest

from e5jax.config import Batch, Data, Export, Model, Tokens, Training
from e5jax.data.records import Example
from e5jax.errors import ConfigError
from e5jax.export.settings import settings
from e5jax.export.trained_model import Choice, TrainedModel
from e5jax.train.inputs import Inputs, read_inputs
from tests import tiny
from tests.inference import odd_models

PLAIN = odd_models.Case(
    ("lasttoken",),
    True,
    ("Normalize",),
    "Tanh",
    False,
    None,
    None,
    None,
    "both",
    False,
    "mistral",
    (),
)


@pytest.fixture(scope="module")
def examples(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("start") / "train.jsonl"
    path.write_text(
        "".join(Example(str(i), f"Query {i}", ("A",), ("B",)).to_json() + "\n" for i in range(8))
    )
    return path


@pytest.fixture
def base(tmp_path) -> Path:
    folder = tmp_path / "base"
    odd_models.write(PLAIN, folder, 1)
    return folder


def read(
    base: Path, examples: Path, limit: int = 16, task: str = "find it", **model: object
) -> Inputs:
    run = Training(
        data=Data(files=("x",)),
        tokens=Tokens(limit=limit, document="passage: "),
        batch=Batch(4, 1, 1),
        model=Model(**model),
        export=Export(task=task),
    )
    return read_inputs(run, [examples], None, str(base))


def test_a_base_that_agrees_with_the_run_has_nothing_to_say(base, examples):
    assert read(base, examples).differences == ()


def test_what_the_run_sets_differently_is_said(base, examples):
    odd_models.edit(base, "1_Pooling/config.json", pooling_mode="mean", include_prompt=False)
    odd_models.edit(
        base, "config_sentence_transformers.json", similarity_fn_name="dot", truncate_dim=8
    )
    assert read(base, examples, task="").differences == (
        "pooling: 'mean' in the base, 'last' in this run (config.model.pooling)",
        "similarity: 'dot' in the base, 'cosine' in this run",
        "prompts are pooled: False in the base, True in this run",
        "dimensions: 8 in the base, None in this run (config.export.dimensions)",
        "prompt of queries: 'Instruct: find it\\nQuery: ' in the base, '' in this run (config.export.task, config.tokens.query)",
    )


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (
            lambda case: case._replace(behind=("Dense", "Normalize")),
            r"has Dense \(2_Dense\) behind its pooling",
        ),
        (
            lambda case: case._replace(behind=("LayerNorm",)),
            r"has LayerNorm \(2_LayerNorm\) behind its pooling",
        ),
        (
            lambda case: case._replace(pooling=("mean", "lasttoken")),
            r"pools by mean\+last, and training knows",
        ),
        (lambda case: case._replace(pooling=("cls",)), r"pools by first, and training knows"),
        (lambda case: case._replace(frame="bos"), r"puts ids \[1\] before and \[\] behind a text"),
    ],
)
def test_what_training_would_lose_is_refused_by_name(tmp_path, examples, change, match):
    odd_models.write(change(PLAIN), tmp_path / "base", 1)
    with pytest.raises(ConfigError, match=match):
        read(tmp_path / "base", examples)
    (tmp_path / "base/modules.json").unlink()  # the fix that is named
    read(tmp_path / "base", examples)


def test_lower_casing_is_carried_into_the_tokens_and_the_export(base, examples):
    odd_models.edit(base, "sentence_bert_config.json", do_lower_case=True)
    tokenizer = read(base, examples).tokenizer
    assert tokenizer(["Query A"]) == tokenizer(["query a"])
    assert (
        json.loads(tokenizer.tokenizer.to_str())["normalizer"]["normalizers"][0]["type"]
        == "Lowercase"
    )


@pytest.mark.parametrize(("bos", "eos"), [(None, [2, 0]), (1, None), (None, None)])
def test_ids_that_the_config_leaves_open_are_those_of_the_tokenizer(base, examples, bos, eos):
    odd_models.edit(base, "config.json", bos_token_id=bos, eos_token_id=eos)
    for modules in (True, False):  # with the sentence-transformers files, and without
        spec = read(base, examples).spec
        assert (spec.bos, spec.eos) == (1, 2)
        if modules:
            (base / "modules.json").unlink()


def test_a_base_without_a_bos_of_any_kind_is_refused(base, examples):
    (base / "modules.json").unlink()
    odd_models.edit(base, "config.json", bos_token_id=None)
    odd_models.drop(base, "tokenizer_config.json", "bos_token")
    with pytest.raises(ConfigError, match="the model has no BOS; set bos_token_id"):
        read(base, examples)


def test_texts_longer_than_the_bases_positions_are_refused_unless_the_run_extends_them(
    base, examples
):
    assert read(base, examples, limit=128).tokenizer.limit == 128
    with pytest.raises(ConfigError, match=r"tokens\.limit=129: the base has 128 positions"):
        read(base, examples, limit=129)
    extended = read(base, examples, limit=129, theta=1e6)
    assert exported(extended)["max_position_embeddings"] == 129


def test_an_export_claims_the_positions_of_its_base(base, examples):
    inputs = read(base, examples)
    assert exported(inputs)["max_position_embeddings"] == 128
    assert exported(inputs._replace(base=None))["max_position_embeddings"] == 32_768


def exported(inputs: Inputs) -> dict:
    """The config.json that an export would have."""
    subject = TrainedModel(
        Training(), inputs.base, tiny.made(inputs.spec, lora=None), {}, inputs.tokenizer, 1
    )
    config = settings(subject, Choice())["config.json"]
    assert isinstance(config, dict)
    return config
