import math

import jax
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from e5jax.config import TARGETS, Lora, Mesh
from e5jax.errors import ConfigError
from e5jax.mesh import AXES, RULES, gather_fsdp, make_mesh, sharding, spec
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
    [(Mesh(2, 2, 1), 8, 4), (Mesh(3, -1, 1), 8, 3), (Mesh(4, 4, 1), 8, 16), (Mesh(16, -1, 1), 8, 16), (Mesh(2, 2, 2), 4, 8)],
)
def test_sizes_that_do_not_fill_the_devices_are_refused_with_the_numbers(config, count, known):
    with pytest.raises(ConfigError) as caught:
        make_mesh(config, jax.devices()[:count])
    for words in ("config.mesh", f"'data': {config.data}", f"of {known} devices", f"there are {count}", "-1"):
        assert words in str(caught.value)


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


@pytest.mark.parametrize("axes", [("embed", "ff"), ("ff", "embed"), ("layers", "embed", "heads"), ("layers", "rank", "ff")])
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
