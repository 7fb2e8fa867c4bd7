"""A package that is missing is named with the extra that brings it."""

import re

import pytest

from e5jax.errors import ConfigError
from e5jax.versions import needed


@pytest.mark.parametrize(
    ("module", "stage", "extra"),
    [
        ("openai", "synth", "synth"),
        ("aiohttp.web", "demo", "demo"),
        ("sentence_transformers", "eval", "eval"),
        ("tensorflow_datasets", "data", "data"),
        ("torch", "mine", "eval"),
    ],
)
def test_the_extra_of_the_stage_is_preferred(module, stage, extra):
    said = f"`e5jax {stage}` needs the package {module.partition('.')[0]}: pip install 'e5jax[{extra}]'"
    with pytest.raises(ConfigError, match=re.escape(said)), needed(stage):
        raise ModuleNotFoundError(name=module)


@pytest.mark.parametrize("module", ["numpy", "jax", "e5jax.nothing", "no_such_package", None])
def test_what_no_extra_brings_is_another_mistake(module):
    with pytest.raises(ModuleNotFoundError), needed("synth"):
        raise ModuleNotFoundError(name=module)
