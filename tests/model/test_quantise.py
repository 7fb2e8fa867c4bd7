"""A frozen base of integers: error bounds, gradients of adapters beside it, bytes, and the same numbers on every mesh."""

import re
from functools import partial
from pathlib import Path

import jax
import ml_dtypes
import numpy as np
import pytest

from e5jax.config import Mesh
from e5jax.errors import ConfigError
from e5jax.model import hf_weights, weight_io
from e5jax.model.model_def import ModelDef, Parameters, model_def
from e5jax.model.quantise import bytes_per_parameter, check_groups, integers, scales
from e5jax.train.build import put_batch
from e5jax.train.step import loss_and_accuracy
from tests import tiny

# Every map has several groups of 128 inputs, and none as many as another.
SPEC = tiny.SPEC._replace(hidden=256, ff=512, heads=4, kv_heads=2, head_size=64, layers=2)
KINDS = ("int8", "int4")
MESHES = [(1, 1, 1), (8, 1, 1), (1, 2, 2), (2, 2, 2)]


def made(kind: str, lora: bool = True) -> ModelDef:
    return model_def(
        SPEC,
        tiny.LORA if lora else None,
        dtype="float32",
        remat="projections",
        kernel="xla",
        quantisation=kind,
    )


VALUES = tiny.numbers(made("none"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("base")
    tensors = tiny.stored(made("none"), VALUES)
    hf_weights.save(
        root,
        [(name, value.shape, lambda value=value: value) for name, value in tensors.items()],
        "float32",
    )
    return root


def load(folder: Path, kind: str, sizes: tuple[int, int, int]) -> Parameters:
    of = made(kind)
    return hf_weights.load(folder, SPEC, of.abstract(of.frozen, tiny.mesh(*sizes), "float32"))


def by_hand(kernel: np.ndarray, kind: str) -> tuple[np.ndarray, np.ndarray]:
    """(integers, what they stand for) of one kernel, group by group and output by output."""
    whole, numbers = np.zeros(kernel.shape, np.int32), np.zeros(kernel.shape, np.float32)
    group, most = (kernel.shape[0], 127) if kind == "int8" else (128, 7)
    for begin in range(0, kernel.shape[0], group):
        for output in range(kernel.shape[1]):
            part = kernel[begin : begin + group, output]
            scale = np.abs(part).max() / np.float32(most)
            whole[begin : begin + group, output] = np.round(part / scale)
            numbers[begin : begin + group, output] = whole[begin : begin + group, output] * scale
    return whole, numbers


def dequantised(kind: str) -> dict[str, np.ndarray]:
    """The base in float32 with the very numbers that the integers stand for."""
    return {
        name: np.stack([by_hand(kernel, kind)[1] for kernel in value])
        if name.endswith("/kernel")
        else value
        for name, value in VALUES.items()
    }


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("scale", [1e-20, 1.0, 1e20])
def test_no_number_is_off_by_more_than_half_a_step(kind, scale):
    random = np.random.default_rng(0)
    kernel = (scale * random.standard_t(3, (384, 40))).astype(
        np.float32
    )  # some are far larger than the rest
    kernel[:, 7] = 0
    group, most = (384, 127) if kind == "int8" else (128, 7)
    step = scales(kernel, kind)
    whole = integers(kernel, step)
    assert step.shape == (384 // group, 40)
    for row in range(384):
        for output in range(40):
            part = kernel[row // group * group :][:group, output]
            wanted = np.abs(part).max() / most
            found = whole[row, output] * step[row // group, output]
            # Rounding of the division, of the product and of the scale are a few parts in 10 million of the largest.
            assert abs(found - kernel[row, output]) <= wanted / 2 + 1e-6 * np.abs(part).max()
    assert np.abs(whole).max() == most
    assert np.array_equal(whole, np.rint(whole))
    assert not whole[:, 7].any()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_base_is_that_of_quantising_by_hand(kind, dtype, folder, tmp_path):
    source, values = folder, VALUES
    if dtype == "bfloat16":
        source, values = (
            tmp_path,
            {name: value.astype(ml_dtypes.bfloat16) for name, value in VALUES.items()},
        )
        tensors = tiny.stored(made("none"), values)
        hf_weights.save(
            source,
            [(name, value.shape, lambda value=value: value) for name, value in tensors.items()],
            dtype,
        )
    found = load(source, kind, (1, 1, 1))
    assert set(found) == set(made(kind).frozen)
    for name, value in found.items():
        if name.endswith("/kernel"):
            assert value.dtype == kind
            wanted = [by_hand(kernel.astype(np.float32), kind) for kernel in values[name]]
            numbers = np.asarray(value).astype(np.float32)
            assert np.array_equal(numbers, np.stack([whole for whole, _ in wanted]))
            step = np.asarray(found[f"{name}_scale"])
            stands = numbers * np.repeat(step, numbers.shape[1] // step.shape[1], axis=1)
            assert np.array_equal(stands, np.stack([numbers for _, numbers in wanted]))
        elif not name.endswith("kernel_scale"):
            assert np.array_equal(value, values[name].astype(np.float32))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sizes", MESHES[1:], ids=str)
def test_every_mesh_loads_the_same_integers_and_scales(kind, sizes, folder, monkeypatch):
    wanted = load(folder, kind, (1, 1, 1))
    monkeypatch.setattr(weight_io, "BLOCK", 5_000)  # many blocks a slice, the last one shorter
    found = load(folder, kind, sizes)
    of = made(kind)
    for name, leaf in of.abstract(of.frozen, tiny.mesh(*sizes), "float32").items():
        assert (found[name].shape, found[name].dtype, found[name].sharding) == (
            leaf.shape,
            leaf.dtype,
            leaf.sharding,
        )
        assert np.array_equal(found[name], wanted[name]), name
    kernel = found["layers/ff/down/kernel"]
    assert {shard.data.shape for shard in kernel.addressable_shards} == {
        (2, 512 // sizes[2], 256 // sizes[1])
    }


@pytest.mark.parametrize("kind", KINDS)
def test_weights_that_are_not_finite_are_named(kind, tmp_path):
    values = {name: value.copy() for name, value in VALUES.items()}
    values["layers/ff/down/kernel"][1, 3, 4] = np.nan
    tensors = tiny.stored(made("none"), values)
    hf_weights.save(
        tmp_path,
        [(name, value.shape, lambda value=value: value) for name, value in tensors.items()],
        "float32",
    )
    with pytest.raises(ConfigError, match=r"NaN or infinity in layers\.1\.mlp\.down_proj\.weight;"):
        load(tmp_path, kind, (1, 1, 1))


@pytest.mark.parametrize("kind", KINDS)
def test_bytes_are_those_of_the_arrays(kind, folder):
    found = load(folder, kind, (1, 1, 1))
    packed = {"int8": 1.0, "int4": 0.5}[kind]
    for name in [name for name in found if name.endswith("/kernel")]:
        kernel, step = found[name], found[f"{name}_scale"]
        assert kernel.size * packed + step.nbytes == kernel.size * bytes_per_parameter(
            kind, kernel.shape[1]
        )
    assert bytes_per_parameter("int8", 4_096) == 1 + 4 / 4_096
    assert bytes_per_parameter("int4", 4_096) == 0.5 + 4 / 128


def gradients(
    of: ModelDef, base: Parameters, sizes: tuple[int, int, int]
) -> tuple[float, dict[str, np.ndarray]]:
    """(loss, gradients of both factors of every map)."""
    on = tiny.mesh(*sizes)
    wanted = of.abstract(of.trained, on, "float32")
    trained = {name: jax.device_put(VALUES[name], leaf.sharding) for name, leaf in wanted.items()}
    with jax.set_mesh(on):
        batch = put_batch(tiny.batch(16, 1, 2, width=12, texts_a_row=3, shards=8), on)
        run = jax.jit(
            jax.value_and_grad(partial(loss_and_accuracy, tiny.objective(of)), has_aux=True)
        )
        (loss, _), found = run(trained, base, batch, None)
    return float(loss), jax.device_get(found)


@pytest.mark.parametrize("kind", KINDS)
def test_adapters_get_the_gradients_that_the_same_base_in_float32_gives(kind, folder):
    plain = made("none")
    on = tiny.mesh(1, 1, 1)
    _, base = tiny.place(plain, dequantised(kind), on)
    loss, wanted = gradients(plain, base, (1, 1, 1))
    _, original = tiny.place(plain, VALUES, on)
    other = gradients(plain, original, (1, 1, 1))[1]
    for sizes in [(1, 1, 1), (2, 2, 2)]:
        found = gradients(made(kind), load(folder, kind, sizes), sizes)
        assert found[0] == pytest.approx(loss, rel=1e-5)
        assert set(found[1]) == set(wanted) == set(made(kind).trained)
        for name, value in wanted.items():
            # int8 scales after the product: float32 rounding in another place. An error of formula is of order 1.
            assert np.linalg.norm(found[1][name] - value) <= 1e-3 * np.linalg.norm(value), (
                name,
                sizes,
            )
            # What rounding the base itself changes: the bound above tells the two bases apart.
            assert np.linalg.norm(other[name] - value) > 3e-3 * np.linalg.norm(value), name


@pytest.mark.parametrize("kind", KINDS)
def test_kernels_travel_between_devices_as_integers(kind):
    of, on = made(kind), tiny.mesh(1, 2, 1)
    wanted = of.abstract(of.leaves, on, "bfloat16")
    with jax.set_mesh(on):
        rows = tiny.rows(on, *(np.ones((4, 8), np.int32) for _ in range(3)))
        run = jax.jit(lambda p, *rows: of.decoder(p)(*rows))
        text = run.lower(wanted, *rows).compile().as_text()
    shapes = {
        ",".join(map(str, of.leaves[name].shape[1:]))
        for name in of.frozen
        if name.endswith("/kernel")
    }
    gathered = [
        (kind, shape)
        for kind, shape in re.findall(r"= (\w+)\[([\d,]+)\]\S* all-gather\(", text)
        if shape in shapes
    ]
    assert len(gathered) == 7
    assert {kind for kind, _ in gathered} <= {"s8", "s4"}  # CPUs move int4 as int8


def test_integers_change_neither_what_is_trained_nor_how_it_starts():
    plain, fresh = made("none"), tiny.mesh(2, 2, 2)
    start = plain.initialise(plain.trained, fresh, seed=0)
    for kind in KINDS:
        of = made(kind)
        assert of.trained == plain.trained
        found = of.initialise(of.trained, fresh, seed=0)
        for name, value in start.items():
            assert found[name].dtype == np.float32
            assert np.array_equal(found[name], value)
        assert of.with_kernel("blockwise").leaves == of.leaves


@pytest.mark.parametrize(
    ("change", "mesh", "named"),
    [
        ({"hidden": 192}, {}, ["hidden=192", "'int4'", "128", "'int8'"]),
        ({"ff": 200}, {}, ["ff=200"]),
        ({"heads": 5}, {}, ["heads × head_size=320"]),
        ({}, {"fsdp": 4}, ["hidden=256", "config.mesh.fsdp=4"]),
        (
            {"heads": 8, "hidden": 512},
            {"tensor": 8},
            ["heads × head_size=512", "config.mesh.tensor=8"],
        ),
    ],
)
def test_sizes_that_groups_do_not_fill_are_refused_by_name(change, mesh, named):
    sizes = SPEC._replace(**change)
    with pytest.raises(ConfigError) as caught:
        check_groups(sizes, "int4", Mesh(**mesh))
    for words in named:
        assert words in str(caught.value)
    check_groups(sizes, "int8", Mesh(**mesh))


def test_sizes_that_groups_fill_are_accepted():
    check_groups(SPEC, "int4", Mesh(2, 2, 2))
    check_groups(
        SPEC._replace(heads=2), "int4", Mesh(1, -1, 2)
    )  # one group of o: its scale waits for the product
