"""What is wrong with a generator's configuration is one error that names the field."""

from pathlib import Path

import pytest

from e5jax.config.load import load_tree
from e5jax.errors import ConfigError
from e5jax.synth.config import Synth
from e5jax.synth.validate import validate

ROOT = Path(__file__).parents[2]
CONFIGS = sorted((ROOT / "configs").glob("synth_*.py"))


def load(path: Path, *overrides: str) -> Synth:
    return load_tree(Synth, validate, str(path), [f"--config.{override}" for override in overrides])


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_shipped_configurations_load(path):
    assert load(path).examples > 0


def test_the_papers_configuration_has_its_figures():
    config = load(ROOT / "configs/synth_e5.py")
    assert (
        config.examples,
        config.sampling.temperature,
        config.sampling.top_p,
        config.tasks.per_call,
    ) == (507_000, 1.0, 1.0, 20)
    assert sorted(model.share for model in config.endpoint.models) == [25, 75]


@pytest.mark.parametrize(
    ("override", "field"),
    [
        ("families.sts.unit=('sentence=9','phrase')", ("sentence=9", "phrase")),
        ("families.sts.unit=('10 words',)", ("10 words",)),
    ],
)
def test_weights_are_overrides(override, field):
    assert load(CONFIGS[0], override).families.sts.unit == field


WRONG = {
    "examples=0": "config.examples=0: must be at least 1",
    "families.sts.share=-1": "config.families.sts.share=-1.0: must be at least 0",
    "families.sts.unit=('stanza',)": "config.families.sts.unit: 'stanza' is no length",
    "families.sts.unit=('phrase=0',)": "config.families.sts.unit: no value has a weight above 0",
    "families.short_long.clarity=('clear','clear=2')": "config.families.short_long.clarity: 'clear' occurs twice",
    "families.short_long.num_words=('some words',)": "config.families.short_long.num_words: 'some words' is no length",
    "families.grounded.share=1": "config.families.grounded.share=1.0 and documents=''",
    "languages=('en=1','xx')": "xx: no code of languages.tsv",
    "languages=('en',)": "bitext takes two",
    "tasks.brainstorm=false": "no tasks; set one of them",
    "tasks.files=('nowhere.jsonl',)": "config.tasks.files=nowhere.jsonl: there is no such file",
    "tasks.avoid=('nowhere.txt',)": "config.tasks.avoid=nowhere.txt: there is no such file",
    "tasks.topics=('',)": "config.tasks.topics: '' is blank",
    "tasks.examples_a_task=0": "config.tasks.examples_a_task=0.0: must be above 0",
    "sampling.temperature=3": "config.sampling.temperature=3.0: must be between 0 and 2",
    "checks.near=1.5": "config.checks.near=1.5: must be between 0 and 1",
    "checks.length_slack=0.5": "config.checks.length_slack=0.5: must be at least 1",
    "budget.money=nan": "budget.money=nan: must be at least 0 and finite",
    "budget.requests=-1": "budget.requests=-1: must be at least 0",
    "checks.attempts=0": "config.checks.attempts=0: must be at least 1",
    "hints.domain_rate=2": "config.hints.domain_rate=2.0: must be between 0 and 1",
    "seed=-1": "config.seed=-1: must be at least 0",
    "endpoint.models=()": "endpoint.models: []: name at least one model",
    "endpoint.models=('gpt',)": "config.endpoint.models[0]='gpt': must be a LanguageModel",
    "exampels=3": "config has no field 'exampels'; did you mean examples?",
    "families.sts.unt=('phrase',)": "config.families.sts has no field 'unt'; did you mean unit?",
}


@pytest.mark.parametrize("override", WRONG)
def test_a_wrong_value_is_named(override):
    with pytest.raises(ConfigError) as caught:
        load(CONFIGS[0], override)
    assert WRONG[override] in str(caught.value)


def test_a_training_configuration_is_no_generators():
    with pytest.raises(ConfigError, match="returned Config; return a Synth"):
        load(ROOT / "configs/quickstart.py")


def test_every_share_zero_is_nothing_to_do():
    shares = [
        f"families.{name}.share=0"
        for name in ("short_long", "long_short", "short_short", "long_long", "sts", "bitext")
    ]
    with pytest.raises(ConfigError, match="every share is 0"):
        load(CONFIGS[0], *shares)
