"""Adapters that PEFT made: folded into their base on any mesh, read factor by factor, or refused with the reason."""

import json
from collections.abc import Callable
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from e5jax.config import Lora
from e5jax.errors import ConfigError
from e5jax.model import hf_weights
from e5jax.model.adapter import read_adapter
from e5jax.model.families import read_spec
from e5jax.model.families.mistral import config_from_spec
from e5jax.model.folder import file_of
from tests import tiny

SPEC = tiny.SPEC._replace(layers=2)
OF = tiny.made(SPEC)
PLAIN = tiny.made(SPEC, lora=None)
VALUES = tiny.numbers(OF)
SCALE = 2.0
pytestmark = pytest.mark.filterwarnings(tiny.PEFT_WARNING)
FACTORS = "adapter_model.safetensors"
Q_A, Q_B = (f"base_model.model.layers.1.self_attn.q_proj.lora_{factor}.weight" for factor in "AB")


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """`base`, in files of few tensors, and `adapter`, as PEFT writes it."""
    root = tmp_path_factory.mktemp("adapter")
    (root / "base").mkdir()
    tensors = [
        (name, value.shape, lambda value=value: value)
        for name, value in tiny.stored(OF, VALUES).items()
    ]
    hf_weights.save(root / "base", tensors, "float32", 60_000)
    (root / "base/config.json").write_text(json.dumps(config_from_spec(SPEC, 64, "float32")))
    model = tiny.peft_mistral(OF, VALUES)
    model.peft_config["default"].base_model_name_or_path = str(root / "base")
    model.save_pretrained(root / "adapter")
    return root


@pytest.fixture
def adapter(made, tmp_path) -> Path:
    """A copy to spoil."""
    for file in (made / "adapter").iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    return tmp_path


def change(folder: Path, **fields: object) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def rewrite(folder: Path, go: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> None:
    save_file(
        {name: value.contiguous() for name, value in go(load_file(folder / FACTORS)).items()},
        folder / FACTORS,
    )


def load(
    folder: Path, dtype: str = "float32", sizes: tuple[int, int, int] = (1, 1, 1)
) -> dict[str, np.ndarray]:
    found = hf_weights.load(folder, SPEC, PLAIN.abstract(PLAIN.leaves, tiny.mesh(*sizes), dtype))
    return {name: np.asarray(value) for name, value in found.items()}


def merged(scale: float = SCALE) -> dict[str, np.ndarray]:
    def kernel(name: str) -> np.ndarray:
        a, b = (VALUES[name.replace("kernel", factor)] for factor in ("lora_a", "lora_b"))
        return VALUES[name] + np.float32(scale) * (a @ b)

    return {
        name: kernel(name) if name.endswith("kernel") else VALUES[name] for name in PLAIN.leaves
    }


def assert_close(found: dict[str, np.ndarray], wanted: dict[str, np.ndarray], atol: float) -> None:
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        np.testing.assert_allclose(found[name].astype(np.float32), value, atol=atol, err_msg=name)


@pytest.mark.parametrize(
    ("sizes", "dtype"), [((1, 1, 1), "float32"), ((2, 2, 2), "float32"), ((1, 4, 2), "bfloat16")]
)
def test_an_adapter_folder_is_its_base_with_the_products_added(made, sizes, dtype, monkeypatch):
    monkeypatch.setattr("e5jax.model.weight_io.BLOCK", 500)  # products are made block by block
    found = load(made / "adapter", dtype, sizes)
    if dtype == "bfloat16":  # rounded once, from the sum
        exact = merged()
        for name, value in found.items():
            near = exact[name].astype(ml_dtypes.bfloat16).astype(np.float32)
            assert np.mean(value.astype(np.float32) == near) > 0.999, name
    else:
        assert_close(found, merged(), 1e-6)
    assert read_spec(made / "adapter") == read_spec(made / "base")


def test_whole_tensors_have_the_product_too(made):
    found = hf_weights.headers(made / "adapter")
    np.testing.assert_allclose(
        hf_weights.read(found["layers.1.mlp.down_proj.weight"]),
        merged()["layers/ff/down/kernel"][1].T,
        atol=1e-6,
    )


def test_names_of_a_causal_model_and_the_scale_of_rslora_are_known(adapter):
    rewrite(
        adapter,
        lambda found: {
            name.replace("model.layers", "model.model.layers"): value
            for name, value in found.items()
        },
    )
    change(adapter, use_rslora=True)
    assert_close(load(adapter), merged(scale=4.0), 1e-6)  # 8 / sqrt(4)


def test_maps_that_are_not_adapted_are_the_bases(adapter):
    rewrite(
        adapter,
        lambda found: {
            name: value for name, value in found.items() if "layers.1" in name and "mlp" in name
        },
    )
    found, exact = load(adapter), merged()
    np.testing.assert_array_equal(
        found["layers/attention/q/kernel"], VALUES["layers/attention/q/kernel"]
    )
    np.testing.assert_array_equal(found["layers/ff/up/kernel"][0], VALUES["layers/ff/up/kernel"][0])
    np.testing.assert_allclose(
        found["layers/ff/up/kernel"][1], exact["layers/ff/up/kernel"][1], atol=1e-6
    )


def test_an_adapter_beside_a_whole_model_changes_that(made, adapter):
    for file in (made / "base").iterdir():
        (adapter / file.name).write_bytes(file.read_bytes())
    change(
        adapter, base_model_name_or_path="nobody/nothing"
    )  # as in transformers it does not matter
    assert_close(load(adapter), merged(), 1e-6)


def test_the_factors_are_read_into_any_placement(made):
    found = read_adapter(made / "adapter")
    assert found is not None
    assert (found.rank, found.alpha, found.targets) == (
        4,
        8.0,
        ("q", "k", "v", "o", "gate", "up", "down"),
    )
    arrays = found.load(SPEC, OF.abstract(OF.trained, tiny.mesh(1, 2, 2), "float32"))
    assert set(arrays) == set(OF.trained)
    for name, value in arrays.items():
        np.testing.assert_array_equal(value, VALUES[name])


def test_training_goes_on_in_the_shape_of_the_adapter_only(made):
    found = read_adapter(made / "adapter")
    assert found is not None
    found.check_same(Lora(4, 8.0, 0.3))
    for lora in (Lora(8, 8.0), Lora(4, 16.0), Lora(4, 8.0, targets=("q", "v"))):
        with pytest.raises(
            ConfigError,
            match=r"rank=4, alpha=8, targets=q,k.*config\.lora has rank=\d, .*; set config\.lora",
        ):
            found.check_same(lora)


def test_training_does_not_go_on_with_some_layers_only(adapter):
    rewrite(
        adapter, lambda found: {name: value for name, value in found.items() if "layers.1" in name}
    )
    found = read_adapter(adapter)
    assert found is not None
    with pytest.raises(
        ConfigError, match=r"nothing adapts layers\.0\..*; training goes on only with"
    ):
        found.load(SPEC, OF.abstract(OF.trained, tiny.mesh(1, 1, 1), "float32"))


def test_files_that_the_adapter_does_not_have_are_its_bases(made):
    assert file_of(made / "adapter", "config.json") == made / "base/config.json"
    assert file_of(made / "adapter", "adapter_config.json") == made / "adapter/adapter_config.json"
    assert file_of(made / "base", "tokenizer.json") == made / "base/tokenizer.json"
    assert {file.parent.name for file in hf_weights.files(made / "adapter")} == {"adapter", "base"}


WRONG = {
    "peft_type='LOHA'; only LORA": {"peft_type": "LOHA"},
    "use_dora=True is not supported; merge": {"use_dora": True},
    "bias='all' is not supported": {"bias": "all"},
    "modules_to_save=": {"modules_to_save": ["norm"]},
    "rank_pattern=": {"rank_pattern": {"q_proj": 2}},
    "init_lora_weights='pissa'": {"init_lora_weights": "pissa"},
    "r=0 and lora_alpha=8": {"r": 0},
    "rank 3 needs A": {"r": 3},
    "base_model_name_or_path is None; name the folder": {"base_model_name_or_path": None},
    "base_model_name_or_path='./nowhere': there is no such folder": {
        "base_model_name_or_path": "./nowhere"
    },
}


@pytest.mark.parametrize("words", WRONG)
def test_what_is_not_known_of_a_config_is_refused(adapter, words):
    change(adapter, **WRONG[words])
    with pytest.raises(ConfigError) as caught:
        hf_weights.headers(adapter)
    assert words in str(caught.value)
    assert str(adapter) in str(caught.value)


def drop(name: str) -> Callable[[dict], dict]:
    return lambda found: {other: value for other, value in found.items() if other != name}


DAMAGED = {
    r"q_proj has B \[64, 4\]; rank 4 needs A": drop(Q_A),
    "magnitude is not a factor": lambda found: (
        found | {"base_model.model.layers.0.magnitude": torch.zeros(2)}
    ),
    r"adapts layers\.9\.mlp\.up_proj, and .*base has no such weights": lambda found: {
        name.replace("layers.0.mlp.up", "layers.9.mlp.up"): value for name, value in found.items()
    },
    r"q_proj is of \[65, 64\] numbers, and .* has \[64, 64\]": lambda found: (
        found | {Q_B: torch.zeros(65, 4)}
    ),
    "there is no tensor in it": lambda _: {},
}


@pytest.mark.parametrize("words", DAMAGED)
def test_what_does_not_fit_the_base_is_refused(adapter, words):
    rewrite(adapter, DAMAGED[words])
    with pytest.raises(ConfigError, match=words):
        hf_weights.headers(adapter)


def test_files_that_are_no_safetensors_are_refused(adapter):
    (adapter / FACTORS).write_bytes(b"x" * 20)
    with pytest.raises(ConfigError, match="not a safetensors file"):
        hf_weights.headers(adapter)
    (adapter / FACTORS).unlink()
    with pytest.raises(ConfigError, match="no such file; an adapter is read from safetensors only"):
        hf_weights.headers(adapter)


def test_nan_in_a_factor_is_named(adapter):
    rewrite(adapter, lambda found: found | {Q_B: torch.full((64, 4), torch.nan)})
    with pytest.raises(ConfigError, match=r"NaN or infinity in layers\.1\.self_attn\.q_proj"):
        load(adapter)
    found = read_adapter(adapter)
    assert found is not None
    with pytest.raises(
        ConfigError, match=r"NaN or infinity in .*layers\.1\.self_attn\.q_proj\.lora_B"
    ):
        found.load(SPEC, OF.abstract(OF.trained, tiny.mesh(1, 1, 1), "float32"))
