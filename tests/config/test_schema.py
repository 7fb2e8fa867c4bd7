import json

import pytest

from e5jax.config import Config, Data, Export, Harvest, Lora, Model, Scratch, Training
from e5jax.config.serialize import differences, from_json, to_json
from e5jax.errors import ConfigError

FULL = Config(
    seed=7,
    data=Data(files=("a.jsonl", "b.jsonl")),
    model=Model(scratch=Scratch(window=None)),
    lora=None,
    pretrain=Training(
        data=Data(harvest=Harvest(train_pairs=5)),
        model=Model(scratch=Scratch(window=64)),
        lora=Lora(targets=("q",)),
    ),
    export=Export(task='Größe "quoted"\n'),
)


@pytest.mark.parametrize("config", [Config(), FULL], ids=["defaults", "everything set"])
def test_json_round_trip_gives_the_same_tree(config):
    again = from_json(to_json(config))
    assert again == config
    assert type(again.pretrain) is type(config.pretrain)


def test_fields_that_json_leaves_out_have_their_defaults():
    assert from_json('{"seed": 3}') == Config(seed=3)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ('{"seeed": 3}', ["config ", "seeed"]),
        ('{"optim": {"steps": 3, "stepz": 3}}', ["config.optim", "stepz"]),
        ('{"pretrain": {"lora": {"rnk": 3}}}', ["config.pretrain.lora", "rnk"]),
        ('{"optim": 3}', ["config.optim", "3"]),
        ("[]", ["config", "[]"]),
        ('{"seed": ', ["config.json", "not JSON"]),
    ],
)
def test_json_of_something_else_is_refused_and_named(text, named):
    with pytest.raises(ConfigError) as caught:
        from_json(text)
    for words in named:
        assert words in str(caught.value)


def test_equal_configurations_have_no_differences():
    assert differences(FULL, from_json(to_json(FULL))) == []


def test_differences_name_each_changed_field_with_old_and_new_value():
    changed = from_json(to_json(FULL))
    changed.optim.steps = 5
    changed.data.files = ("a.jsonl",)
    assert changed.pretrain is not None
    changed.pretrain.model.pooling = "mean"
    assert differences(FULL, changed) == [
        "config.data.files: ('a.jsonl', 'b.jsonl') -> ('a.jsonl',)",
        "config.optim.steps: 879 -> 5",
        "config.pretrain.model.pooling: 'last' -> 'mean'",
    ]


def test_a_group_that_is_new_differs_in_each_of_its_fields():
    found = differences(Config(), Config(lora=Lora()))
    assert "config.lora.rank: None -> 16" in found
    assert len(found) >= len(json.loads(to_json(Config(lora=Lora())))["lora"])
