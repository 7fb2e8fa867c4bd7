"""Safetensors folders: round trips, whatever transformers writes, and every defect named at once."""

import json
import struct
from pathlib import Path

import jax
import ml_dtypes
import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from e5jax.errors import ConfigError
from e5jax.model import hf_weights, weight_io
from e5jax.model.families import llama, read_spec
from e5jax.model.families.mistral import config_from_spec, spec_from_config
from e5jax.model.model_def import Parameters
from e5jax.model.spec import Spec
from tests import tiny

# head size × heads is not hidden, theta and window are not the defaults.
SPEC = tiny.SPEC._replace(layers=2, head_size=32, theta=1e6, window=7)
OF = tiny.made(SPEC, lora=None)
VALUES = tiny.numbers(OF)


def load(
    folder: Path, spec: Spec = SPEC, dtype: str = "float32", sizes: tuple[int, int, int] = (1, 1, 1)
) -> Parameters:
    of = tiny.made(spec, lora=None)
    return hf_weights.load(folder, spec, of.abstract(of.leaves, tiny.mesh(*sizes), dtype))


def save(folder: Path, values: dict[str, np.ndarray], dtype: str = "float32") -> None:
    tensors = tiny.stored(OF, values)
    hf_weights.save(
        folder,
        [(name, value.shape, lambda value=value: value) for name, value in tensors.items()],
        dtype,
    )


def assert_equal(found: Parameters, wanted: dict[str, np.ndarray]) -> None:
    assert set(found) == set(wanted)
    for name, value in wanted.items():
        assert np.array_equal(found[name], value), name


@pytest.fixture
def folder(tmp_path) -> Path:
    save(tmp_path, VALUES)
    return tmp_path


@pytest.fixture
def sharded(tmp_path, monkeypatch) -> Path:
    monkeypatch.setattr(hf_weights, "SHARD_BYTES", 50_000)
    save(tmp_path, VALUES)
    return tmp_path


def damage(folder: Path, **changes: torch.Tensor | None) -> None:
    """Replaces tensors of a single file, or drops those given as None; `__` stands for a dot."""
    tensors = load_file(folder / "model.safetensors")
    for name, value in changes.items():
        tensors.pop(name.replace("__", "."), None)
        if value is not None:
            tensors[name.replace("__", ".")] = value
    save_file(tensors, folder / "model.safetensors")


def test_a_single_file_gives_back_what_was_saved(folder):
    assert [file.name for file in folder.iterdir()] == ["model.safetensors"]
    assert_equal(load(folder), VALUES)


def test_several_files_give_back_what_was_saved(sharded):
    files = hf_weights.files(sharded)
    assert len(files) > 3
    largest = max(value.nbytes for value in tiny.stored(OF, VALUES).values())
    for file in files:
        assert sum(value.nbytes for value in load_file(file).values()) <= max(50_000, largest)
    index = json.loads((sharded / "model.safetensors.index.json").read_text())
    assert set(index["weight_map"]) == set(tiny.stored(OF, VALUES))
    assert_equal(load(sharded), VALUES)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_every_mesh_loads_the_same_numbers_and_places_them(folder, dtype):
    found = load(folder, dtype=dtype, sizes=(2, 2, 2))
    assert_equal(
        found,
        {
            name: value.astype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)
            for name, value in VALUES.items()
        },
    )
    kernel = found["layers/attention/q/kernel"]
    assert kernel.dtype == dtype
    assert {shard.data.shape for shard in kernel.addressable_shards} == {
        (2, SPEC.hidden // 2, SPEC.heads * SPEC.head_size // 2)
    }


@pytest.mark.parametrize(
    ("dtype", "narrow"), [("bfloat16", ml_dtypes.bfloat16), ("float16", np.float16)]
)
def test_half_precision_files_load_exactly(tmp_path, dtype, narrow):
    save(tmp_path, VALUES, dtype)
    assert {value.dtype for value in load_file(tmp_path / "model.safetensors").values()} == {
        getattr(torch, dtype)
    }
    assert_equal(
        load(tmp_path),
        {name: value.astype(narrow).astype(np.float32) for name, value in VALUES.items()},
    )


def transformers_config() -> transformers.MistralConfig:
    return transformers.MistralConfig(**config_from_spec(SPEC, 512, "float32"))


@pytest.mark.parametrize("kind", [transformers.MistralModel, transformers.MistralForCausalLM])
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_what_transformers_saves_loads(tmp_path, kind, dtype):
    model = kind(transformers_config())
    inner = model.model if kind is transformers.MistralForCausalLM else model
    inner.load_state_dict(
        {name: torch.from_numpy(value) for name, value in tiny.stored(OF, VALUES).items()}
    )
    model.to(getattr(torch, dtype)).save_pretrained(tmp_path)
    assert read_spec(tmp_path) == SPEC._replace(eos=2)
    names = load_file(tmp_path / "model.safetensors")
    assert (
        ("lm_head.weight" in names)
        == ("model.norm.weight" in names)
        == (kind is transformers.MistralForCausalLM)
    )
    narrow = {"float32": np.float32, "float16": np.float16, "bfloat16": ml_dtypes.bfloat16}[dtype]
    assert_equal(
        load(tmp_path),
        {name: value.astype(narrow).astype(np.float32) for name, value in VALUES.items()},
    )


def test_several_files_of_a_causal_model_load(tmp_path):
    model = transformers.MistralForCausalLM(transformers_config())
    model.model.load_state_dict(
        {name: torch.from_numpy(value) for name, value in tiny.stored(OF, VALUES).items()}
    )
    model.save_pretrained(tmp_path, max_shard_size="60KB")
    assert len(hf_weights.files(tmp_path)) > 2
    assert_equal(load(tmp_path), VALUES)


def test_every_wrong_tensor_is_named_at_once(folder):
    damage(
        folder,
        norm__weight=None,
        layers__0__self_attn__q_proj__weight=None,
        layers__0__self_attn__q_proj__bias=torch.zeros(3),
        visual__weight=torch.zeros(3),
        layers__1__mlp__up_proj__weight=torch.zeros(5, 7),
        embed_tokens__weight=torch.zeros(SPEC.vocab + 1, SPEC.hidden),
        layers__1__mlp__down_proj__weight=torch.zeros(SPEC.hidden, SPEC.ff, dtype=torch.int8),
    )
    with pytest.raises(ConfigError) as error:
        load(folder)
    for part in (
        "missing norm.weight",
        "missing layers.0.self_attn.q_proj.weight",
        "unexpected layers.0.self_attn.q_proj.bias",
        "unexpected visual.weight",
        "layers.1.mlp.up_proj.weight has shape [5, 7], the config needs [128, 64]",
        "embed_tokens.weight has shape [98, 64], the config needs [97, 64]",
        "layers.1.mlp.down_proj.weight is I8",
    ):
        assert part in str(error.value)
    assert len(str(error.value).split("; ")) == 7


@pytest.mark.parametrize("layers", [1, 3])
def test_another_number_of_layers_is_refused(folder, layers):
    with pytest.raises(
        ConfigError, match="unexpected layers.1" if layers == 1 else "missing layers.2"
    ):
        load(folder, SPEC._replace(layers=layers))


@pytest.mark.parametrize("sizes", [(1, 1, 1), (2, 2, 2)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_tensor_that_is_not_finite_is_named_at_once(folder, sizes, dtype):
    up, norm = (
        torch.full((SPEC.ff, SPEC.hidden), torch.finfo(dtype).min, dtype=dtype),
        torch.ones(SPEC.hidden, dtype=dtype),
    )
    damage(folder, layers__1__mlp__up_proj__weight=up)
    load(folder, sizes=sizes)  # numbers, if large ones
    up[-1, -1], norm[0] = float("nan"), float("-inf")
    damage(folder, layers__1__mlp__up_proj__weight=up, norm__weight=norm)
    with pytest.raises(
        ConfigError, match=r"NaN or infinity in layers\.1\.mlp\.up_proj\.weight, norm\.weight;"
    ):
        load(folder, sizes=sizes)


@pytest.mark.parametrize("keep", [0, 4, 500, -4])
def test_a_truncated_file_is_refused(folder, keep):
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(ConfigError, match=r"model\.safetensors: not a safetensors file"):
        load(folder)


def test_a_header_longer_than_the_file_is_refused(folder):
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", 10_000) + b"{}")
    with pytest.raises(ConfigError, match=r"model\.safetensors: not a safetensors file"):
        load(folder)


def test_a_header_without_end_is_refused_before_it_is_read(folder, monkeypatch):
    monkeypatch.setattr(weight_io, "safe_open", None)
    (folder / "model.safetensors").write_bytes(
        struct.pack("<Q", weight_io.HEADER_BYTES + 1) + b" " * 100
    )
    with pytest.raises(
        ConfigError,
        match=r"model\.safetensors: not a safetensors file \(a header of 8,000,001 bytes",
    ):
        load(folder)


@pytest.mark.parametrize("shape", [[2**40], [2**63], [-1], [2**32, 2**32], [1.5], "x"])
def test_a_shape_that_the_file_does_not_hold_is_refused_before_anything_is_set_aside(shape, folder):
    header = json.dumps(
        {"norm.weight": {"dtype": "F32", "shape": shape, "data_offsets": [0, 4]}}
    ).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(4))
    with pytest.raises(ConfigError, match=r"model\.safetensors"):
        load(folder)


def test_a_tensor_in_two_files_is_refused(folder):
    for name in ("a", "b"):
        save_file(
            {"model.norm.weight"[6 * (name == "a") :]: torch.zeros(4)},
            folder / f"{name}.safetensors",
        )
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"weight_map": {n: f"{n}.safetensors" for n in "ab"}})
    )
    with pytest.raises(
        ConfigError, match=r"b\.safetensors: has model\.norm\.weight, and so has a\.safetensors"
    ):
        load(folder)


def test_a_folder_without_weights_is_refused(tmp_path):
    with pytest.raises(
        ConfigError, match=r"neither model\.safetensors nor model\.safetensors\.index\.json"
    ):
        load(tmp_path)


def test_an_index_that_names_absent_files_is_refused(sharded):
    first, second, *_ = hf_weights.files(sharded)
    first.unlink()
    second.unlink()
    with pytest.raises(ConfigError, match=f"files that are not there: {first.name}, {second.name}"):
        load(sharded)


@pytest.mark.parametrize(
    "outside", ["../x.safetensors", "/x.safetensors", "sub/x.safetensors", ".."]
)
def test_an_index_that_leaves_the_folder_is_refused(tmp_path, outside):
    for name in ("inner", "inner/sub"):
        (tmp_path / name).mkdir()
        save(tmp_path / name, VALUES)
    for name in (tmp_path / "x.safetensors", tmp_path / "inner/sub/x.safetensors"):
        name.write_bytes((tmp_path / "inner/model.safetensors").read_bytes())
    inside = tmp_path / "inner"
    where = dict.fromkeys(
        tiny.stored(OF, VALUES),
        outside.replace("/x", f"{tmp_path}/x") if outside[0] == "/" else outside,
    )
    (inside / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))
    with pytest.raises(ConfigError, match="files that are not there"):
        load(inside)


@pytest.mark.parametrize("text", ["not json", "{}", "[]", '{"weight_map": {"norm.weight": 3}}'])
def test_an_index_that_cannot_be_read_is_refused(folder, text):
    (folder / "model.safetensors.index.json").write_text(text)
    with pytest.raises(ConfigError, match=r"model\.safetensors\.index\.json"):
        load(folder)


def test_a_spec_survives_config_json():
    assert spec_from_config(config_from_spec(SPEC, 512, "float32"), "here") == SPEC


def write(folder: Path, **changes: object) -> Path:
    """config.json of SPEC with changes; None drops a field."""
    config = config_from_spec(SPEC, 512, "float32") | changes
    (folder / "config.json").write_text(
        json.dumps({name: value for name, value in config.items() if value is not None})
    )
    return folder


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "gemma"}, r"model_type='gemma' is not supported; supported: mistral"),
        ({"model_type": None}, r"model_type=None is not supported"),
        ({"vocab_size": None, "num_hidden_layers": None}, r"vocab_size, num_hidden_layers missing"),
        ({"hidden_act": "gelu"}, r"hidden_act='gelu'"),
        ({"rope_parameters": {"rope_type": "yarn", "factor": 4.0}}, r"rope_type='yarn'"),
        (
            {"rope_parameters": None, "rope_scaling": {"type": "linear", "factor": 2.0}},
            r"rope_type='linear'",
        ),
    ],
)
def test_a_config_that_the_decoder_does_not_implement_is_refused(tmp_path, changes, message):
    with pytest.raises(ConfigError, match=message):
        read_spec(write(tmp_path, **changes))


@pytest.mark.parametrize("text", ["not json", "[]", "3"])
def test_a_config_that_cannot_be_read_is_refused(tmp_path, text):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ConfigError, match=r"config\.json"):
        read_spec(tmp_path)


def test_a_folder_without_config_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"config\.json: no such file"):
        read_spec(tmp_path)


def test_fields_that_older_configs_lack_get_transformers_defaults():
    optional = (
        "num_key_value_heads",
        "head_dim",
        "rope_parameters",
        "rope_theta",
        "sliding_window",
        "rms_norm_eps",
        "hidden_act",
    )
    config = config_from_spec(SPEC._replace(heads=8), 512, "float32")
    bare = {
        name: value
        for name, value in config.items()
        if name not in (*optional, "bos_token_id", "eos_token_id")
    }
    theirs = transformers.MistralConfig(**bare)
    found = spec_from_config(bare, "here")
    assert found.kv_heads == theirs.num_key_value_heads
    assert found.head_size == theirs.head_dim
    assert found.theta == theirs.rope_parameters["rope_theta"]
    assert found.epsilon == theirs.rms_norm_eps
    assert found.window == theirs.sliding_window
    assert (found.bos, found.eos) == (theirs.bos_token_id, theirs.eos_token_id)
    assert spec_from_config(bare | {"sliding_window": None}, "here").window is None
    null = {
        "num_attention_heads": 4,
        "num_key_value_heads": None,
    }  # transformers 4 takes it for as many as heads
    assert spec_from_config(bare | null, "here").kv_heads == 4
    assert spec_from_config(bare | {"rope_theta": 5e5}, "here").theta == 5e5


def test_weights_are_read_in_slices(folder, monkeypatch):
    largest = []
    opened = weight_io.safe_open

    class Watched:
        def __init__(self, *arguments, **options):
            self.inner = opened(*arguments, **options)

        def __enter__(self):
            self.inner.__enter__()
            return self

        def __exit__(self, *reason):
            return self.inner.__exit__(*reason)

        def offset_keys(self):
            return self.inner.offset_keys()

        def get_slice(self, name):
            view = self.inner.get_slice(name)
            assert view.get_shape()

            class Slice:
                get_shape, get_dtype = view.get_shape, view.get_dtype

                def __getitem__(self, index):
                    part = view[index]
                    largest.append((part.size, int(np.prod(view.get_shape()))))
                    return part

            return Slice()

    monkeypatch.setattr(weight_io, "safe_open", Watched)
    load(folder, sizes=(1, 4, 2))
    matrices = [(part, whole) for part, whole in largest if whole > SPEC.vocab * SPEC.hidden]
    assert matrices
    assert all(part * 8 == whole for part, whole in matrices)


# --- the family of Llama ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("bias", [False, True])
def test_a_folder_of_llama_is_read_as_transformers_reads_it(bias, tmp_path):
    config = transformers.LlamaConfig(
        vocab_size=97,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
    )
    config.attention_bias = config.mlp_bias = bias
    theirs = transformers.LlamaModel(config).eval()
    for parameter in theirs.parameters():  # biases begin at zero
        torch.nn.init.normal_(parameter, 1.0 if parameter.ndim == 1 and not bias else 0.0, 0.2)
    theirs.save_pretrained(tmp_path)
    spec = read_spec(tmp_path)
    assert (spec.family, spec.bias, spec.window, spec.kv_heads) == ("llama", bias, None, 2)
    of, on = tiny.made(spec, lora=None), tiny.mesh(1, 1, 1)
    found = hf_weights.load(tmp_path, spec, of.abstract(of.leaves, on, "float32"))
    tokens = np.random.default_rng(0).integers(3, 97, (2, 12)).astype(np.int32)
    with jax.set_mesh(on), torch.no_grad():
        rows = tiny.rows(
            on, tokens, np.ones_like(tokens), np.tile(np.arange(12, dtype=np.int32), (2, 1))
        )
        ours = np.asarray(
            jax.jit(lambda parameters, *rows: of.decoder(parameters)(*rows))(found, *rows)
        )
        wanted = theirs(torch.from_numpy(tokens).long()).last_hidden_state.numpy()
    np.testing.assert_allclose(ours, wanted, atol=1e-4)


def test_biases_on_some_maps_only_are_refused():
    config = config_from_spec(tiny.SPEC._replace(bias=True), 64, "float32") | {"mlp_bias": False}
    with pytest.raises(ConfigError, match="biases on all linear maps are supported, or on none"):
        llama.spec_from_config(config, "config.json")
