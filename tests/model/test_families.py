"""Configs of real models: what is written differently is read, what is wrong is one line."""

import pytest

from e5jax.errors import ConfigError
from e5jax.model.families import llama, mistral
from tests import tiny

CONFIG = mistral.config_from_spec(tiny.SPEC, 512, "float32")


@pytest.mark.parametrize("family", [mistral, llama])
def test_numbers_may_be_strings(family):
    written = {
        name: str(value)
        if isinstance(value, int | float) and not isinstance(value, bool)
        else value
        for name, value in CONFIG.items()
    }
    ids = {"bos_token_id": 1, "eos_token_id": 2}
    assert family.spec_from_config(written | ids, "here") == family.spec_from_config(CONFIG, "here")


def test_a_list_of_ends_and_a_null_are_left_to_the_tokenizer():
    spec = mistral.spec_from_config(CONFIG | {"bos_token_id": None, "eos_token_id": [2, 0]}, "here")
    assert (spec.bos, spec.eos) == (None, None)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"hidden_size": "many"}, "hidden_size='many'; must be a number"),
        ({"hidden_size": 64.5}, "hidden_size=64.5; must be a whole number"),
        ({"hidden_size": True}, "hidden_size=True; must be a number"),
        ({"num_hidden_layers": 0}, "num_hidden_layers=0; must be a whole number of at least 1"),
        ({"num_key_value_heads": 3}, "num_key_value_heads=3"),
        ({"head_dim": 15}, "head_dim=15"),
        ({"bos_token_id": "<s>"}, "bos_token_id='<s>'; must be the id of a token"),
        ({"eos_token_id": [2, "x"]}, "eos_token_id="),
        ({"rope_parameters": [1]}, "rope_parameters="),
        ({"rope_parameters": {"full_attention": {"rope_theta": 1e4}}}, "only one rotary embedding"),
        ({"rope_parameters": {"rope_theta": -1}}, "rope_theta=-1.0; must be above 0"),
        ({"rms_norm_eps": [1e-6]}, "rms_norm_eps="),
        ({"is_causal": "no"}, "is_causal='no'; must be true or false"),
    ],
)
def test_a_wrong_value_is_named(changes, match):
    with pytest.raises(ConfigError, match=f"here: .*{match.replace('[', chr(92) + '[')}"):
        mistral.spec_from_config(CONFIG | changes, "here")
