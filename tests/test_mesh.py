import math
from functools import partial

import jax
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from e5jax.config import TARGETS, Batch, Lora, Mesh, Training
from e5jax.errors import ConfigError
from e5jax.mesh import (
    AXES,
    BATCH,
    RULES,
    cpu_devices,
    defer_sums,
    gather_fsdp,
    make_mesh,
    sharding,
    spec,
)
from tests import tiny


@pytest.mark.parametrize(
    ("config", "shape"),
    [
        (Mesh(), (1, 8, 1)),
        (Mesh(-1, 1, 1), (8, 1, 1)),
        (Mesh(1, 1, -1), (1, 1, 8)),
        (Mesh(2, -1, 2), (2, 2, 2)),
        (Mesh(-1, 4, 2), (1, 4, 2)),
        (Mesh(2, 4, 1), (2, 4, 1)),
    ],
)
def test_minus_one_takes_all_devices_that_are_left(config, shape):
    mesh = make_mesh(config)
    assert tuple(mesh.shape.items()) == tuple(zip(AXES, shape, strict=True))
    assert set(mesh.devices.flat) == set(jax.devices())


def test_mesh_is_explicit_on_every_axis_and_over_the_devices_given():
    mesh = make_mesh(Mesh(), jax.devices()[2:6])
    assert mesh.axis_types == (AxisType.Explicit,) * 3
    assert set(mesh.devices.flat) == set(jax.devices()[2:6])


@pytest.mark.parametrize(
    ("config", "count", "known"),
    [
        (Mesh(2, 2, 1), 8, 4),
        (Mesh(3, -1, 1), 8, 3),
        (Mesh(4, 4, 1), 8, 16),
        (Mesh(16, -1, 1), 8, 16),
        (Mesh(2, 2, 2), 4, 8),
    ],
)
def test_sizes_that_do_not_fill_the_devices_are_refused_with_the_numbers(config, count, known):
    with pytest.raises(ConfigError) as caught:
        make_mesh(config, jax.devices()[:count])
    for words in (
        "config.mesh",
        f"'data': {config.data}",
        f"of {known} devices",
        f"there are {count}",
        "-1",
    ):
        assert words in str(caught.value)


@pytest.mark.parametrize(
    ("mesh", "shards", "cores", "devices"),
    [
        (Mesh(-1, 1, 1), 4, 2, 2),
        (Mesh(-1, 1, 1), 4, 64, 4),  # no more than have rows
        (Mesh(-1, 1, 1), 4, 3, 2),
        (Mesh(-1, 1, 1), 1, 8, 1),
        (Mesh(), 6, 8, 6),
        (Mesh(-1, 1, 2), 2, 8, 4),
        (Mesh(1, 1, -1), 1, 3, 3),  # heads, not rows, are spread
        (Mesh(2, 2, 2), 4, 2, 8),  # as asked, however few cores
        (Mesh(3, -1, 1), 2, 8, 1),  # nothing fits: `make_mesh` will say so
    ],
)
def test_a_cpu_is_as_many_devices_as_have_cores_and_rows(mesh, shards, cores, devices):
    assert cpu_devices([Training(mesh=mesh, batch=Batch(shards=shards))], cores) == devices


def test_a_cpu_is_as_many_devices_as_all_runs_can_use():
    runs = [Training(mesh=Mesh(-1, 1, 1), batch=Batch(shards=shards)) for shards in (4, 6)]
    assert cpu_devices(runs, 8) == 2


def test_each_of_several_processes_has_its_share_of_the_devices():
    fixed = Training(mesh=Mesh(data=2, fsdp=4, tensor=1), batch=Batch(shards=8))
    assert [cpu_devices([fixed], 2, processes) for processes in (1, 2, 8)] == [8, 4, 1]
    free = Training(mesh=Mesh(data=1, fsdp=-1, tensor=1), batch=Batch(shards=8))
    assert [cpu_devices([free], 8, processes) for processes in (1, 2, 4)] == [8, 4, 2]


@pytest.mark.parametrize("lora", [None, Lora(rank=4, targets=TARGETS)], ids=["base", "adapters"])
def test_rules_place_every_axis_of_every_parameter_on_a_mesh_axis_at_most_once(lora):
    used = set()
    for name, leaf in tiny.made(lora=lora).leaves.items():
        assert len(leaf.axes) == len(leaf.shape), name
        placed = [axis for axis in spec(leaf.axes) if axis]
        assert len(set(placed)) == len(placed), name
        assert set(placed) <= set(AXES), name
        used |= set(leaf.axes)
    assert used == set(RULES) - (set() if lora else {"rank"})


def test_every_matrix_is_stored_over_fsdp():
    leaves = tiny.made().leaves
    matrices = [name for name in leaves if name.endswith(("/kernel", "embedding"))]
    assert [name for name in matrices if "fsdp" not in spec(leaves[name].axes)] == []


def test_an_unknown_axis_is_an_error():
    with pytest.raises(KeyError):
        spec(("embed", "embd"))


def test_sharding_divides_an_array_over_its_axes():
    mesh = tiny.mesh(2, 2, 2)
    array = jax.device_put(np.arange(8.0).reshape(4, 2), sharding(mesh, ("embed", "ff")))
    assert {shard.data.shape for shard in array.addressable_shards} == {(2, 1)}
    assert sharding(mesh, (None, "vocab")) == NamedSharding(mesh, P(None, None))


@pytest.mark.parametrize(
    "axes",
    [("embed", "ff"), ("ff", "embed"), ("layers", "embed", "heads"), ("layers", "rank", "ff")],
)
def test_gather_undoes_fsdp_and_keeps_the_tensor_axis(axes):
    mesh = tiny.mesh(2, 2, 2)
    shape = (4, 8, 2)[: len(axes)]
    values = np.arange(math.prod(shape), dtype=np.float32).reshape(shape)
    with jax.set_mesh(mesh):
        gathered = jax.jit(gather_fsdp)(jax.device_put(values, sharding(mesh, axes)))
    wanted = [axis if axis == "tensor" else None for axis in spec(axes)]
    assert jax.typeof(gathered).sharding.spec == P(*wanted)
    assert {shard.data.shape for shard in gathered.addressable_shards} == {
        tuple(size // 2 if axis else size for size, axis in zip(shape, wanted, strict=True))
    }
    np.testing.assert_array_equal(gathered, values)


def test_a_deferred_sum_gives_the_gradient_that_an_immediate_one_gives():
    mesh = tiny.mesh(2, 2, 2)
    x = np.arange(32, dtype=np.float32).reshape(4, 2, 4)

    def loss(weight, treated):
        y = jax.numpy.einsum(
            "nti,io->nto", rows, gather_fsdp(treated(weight)), out_sharding=P(BATCH, None, "tensor")
        )
        return jax.numpy.sum(jax.numpy.sin(y))

    with jax.set_mesh(mesh):
        (rows,) = tiny.rows(mesh, x)
        weight = jax.device_put(
            np.arange(16, dtype=np.float32).reshape(4, 4), sharding(mesh, ("embed", "ff"))
        )
        late, now = (
            jax.jit(jax.grad(partial(loss, treated=treated)))(weight)
            for treated in (defer_sums, lambda w: w)
        )
    assert late.sharding == now.sharding == weight.sharding
    np.testing.assert_allclose(late, now, rtol=1e-6)
