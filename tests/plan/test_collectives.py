"""Traffic of programs made by hand: exact bytes, on the right mesh axis."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec, reshard

from e5jax.hardware import CHIPS
from e5jax.plan.collectives import Collective, axis_of, read_groups, wire_bytes
from e5jax.plan.costs import Operation, operations
from e5jax.plan.hlo import parse
from e5jax.plan.roofline import roofline, seconds, traffic
from tests import tiny

CHIP = CHIPS["TPU v5 lite"]
FOUR = ((0, 1, 2, 3),)


def test_a_gather_over_fsdp_and_a_sum_over_data_are_counted_where_they_are():
    mesh = tiny.mesh(2, 4, 1)

    def program(w, x):
        whole = reshard(w, PartitionSpec(None, None))
        return jax.shard_map(
            lambda x: jax.lax.psum(x, "data"),
            in_specs=PartitionSpec("data"),
            out_specs=PartitionSpec(),
        )(x), whole

    def argument(shape, *spec):
        return jax.ShapeDtypeStruct(
            shape, jnp.float32, sharding=NamedSharding(mesh, PartitionSpec(*spec))
        )

    with jax.set_mesh(mesh):
        compiled = (
            jax.jit(program).lower(argument((64, 32), "fsdp"), argument((10, 6), "data")).compile()
        )
    found = traffic(operations(parse(compiled.as_text()), 8), mesh.devices.shape)
    assert found == {
        "all-gather": {"fsdp": 64 * 32 * 4 * 3 / 4},  # three quarters of the array come from others
        "all-reduce": {
            "data": 5 * 6 * 4 * 2 * 1 / 2
        },  # half of the sum is made here and half is fetched
    }


@pytest.mark.parametrize(
    ("attributes", "groups"),
    [
        ({"replica_groups": "{{0,2},{1,3}}"}, ((0, 2), (1, 3))),
        ({"replica_groups": "{}"}, FOUR),
        ({}, FOUR),
        ({"replica_groups": "[2,2]<=[4]"}, ((0, 1), (2, 3))),
        ({"replica_groups": "[2,2]<=[2,2]T(1,0)"}, ((0, 2), (1, 3))),
        ({"replica_groups": "mesh['axis_0'=2,'axis_1'=2] {'axis_1'}"}, ((0, 1), (2, 3))),
        ({"replica_groups": "mesh['axis_0'=2,'axis_1'=2] {'axis_0'}"}, ((0, 2), (1, 3))),
        (
            {
                "replica_groups": "mesh['axis_0'=2,'axis_1'=2]",
                "device_ids": "([2,2]T(1,0)) {'axis_0'}",
            },
            ((0, 1), (2, 3)),
        ),
        ({"replica_groups": "mesh['axis_0'=4,'axis_1'=1] {'axis_0','axis_1'}"}, FOUR),
    ],
    ids=str,
)
def test_every_way_to_write_groups_is_read(attributes, groups):
    assert read_groups(attributes, 4) == groups


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_groups_along_an_axis_carry_its_name(axis):
    shape = (2, 3, 4)
    groups = np.moveaxis(np.arange(24).reshape(shape), axis, -1).reshape(-1, shape[axis])
    assert axis_of(tuple(map(tuple, groups.tolist())), shape) == ("data", "fsdp", "tensor")[axis]


def test_groups_over_two_axes_carry_both_names():
    assert axis_of(((0, 1, 2, 3),), (2, 2, 1)) == "data+fsdp"


@pytest.mark.parametrize("members", [2, 3, 8])
def test_bytes_received_are_those_of_a_ring(members):
    """A ring of devices that pass pieces on: count what arrives."""
    piece = 1 / members
    gathered = sum(piece for _ in range(members - 1))
    assert wire_bytes("all-gather", 1.0, members) == pytest.approx(gathered)
    assert wire_bytes("reduce-scatter", 1.0, members) == pytest.approx(gathered)
    assert wire_bytes("all-reduce", 1.0, members) == pytest.approx(2 * gathered)


def test_alone_nothing_is_received():
    assert {
        kind: wire_bytes(kind, 5.0, 1)
        for kind in ("all-gather", "all-reduce", "collective-permute")
    } == dict.fromkeys(("all-gather", "all-reduce", "collective-permute"), 0.0)


def test_between_slices_only_each_devices_share_takes_the_slow_network():
    part = Collective("all-reduce", 1e9, ((0, 1, 2, 3),), overlapped=False)
    inside = 2 * 1e9 / 2 / CHIP.interconnect
    between = 2 * (1e9 / 2) / 2 / CHIP.datacenter
    assert seconds(part, CHIP, [0, 0, 1, 1]) == pytest.approx(inside + between)
    assert seconds(part, CHIP, [0, 0, 0, 0]) == pytest.approx(2 * 1e9 * 3 / 4 / CHIP.interconnect)


def test_a_step_is_its_operations_one_after_the_other_with_the_overlapped_network_beside_them():
    gather = Collective(
        "all-gather", CHIP.interconnect, ((0, 1),), overlapped=True
    )  # half a second
    done = [
        Operation("product", "dot", times=2, flops=CHIP.flops, bytes=0.1 * CHIP.bandwidth),
        Operation("copy", "copy", times=1, flops=0, bytes=3 * CHIP.bandwidth),
        Operation("fusion", "fusion", times=4, flops=0, bytes=0, collectives=(gather,)),
    ]
    found = roofline(done, CHIP, [0, 0])
    assert (found.compute, found.memory, found.network, found.on_chip) == pytest.approx(
        (2, 3.2, 2, 5)
    )
    assert found.step == pytest.approx(5)
    assert found.bound == "memory"
    waiting = [
        one._replace(collectives=tuple(part._replace(overlapped=False) for part in one.collectives))
        for one in done
    ]
    assert roofline(waiting, CHIP, [0, 0]).step == pytest.approx(7)
