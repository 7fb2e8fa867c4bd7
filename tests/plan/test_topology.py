import os
from unittest import mock

import jax
import pytest

from e5jax.config import Mesh as MeshConfig
from e5jax.errors import ConfigError
from e5jax.hardware import CHIPS
from e5jax.mesh import make_mesh
from e5jax.plan import topology
from e5jax.plan.machine import machine, slice_of
from e5jax.plan.topology import parse_topology, prepare


@pytest.fixture(autouse=True)
def _prepared():
    with mock.patch.dict(os.environ):
        prepare(parse_topology("v5e:1x1"))
        yield


@pytest.mark.parametrize(
    ("name", "slices", "kind", "chips"),
    [
        ("v5e:4x4", 1, "TPU v5 lite", 16),
        ("v5e:1x1", 1, "TPU v5 lite", 1),
        ("v5e:2x2", 3, "TPU v5 lite", 12),
        ("v4:2x2x4", 1, "TPU v4", 16),
        ("v4:1x1x1", 1, "TPU v4", 1),
        ("v5p:2x2x2", 1, "TPU v5", 8),
        ("v6e:4x4", 1, "TPU v6 lite", 16),
    ],
)
def test_a_topology_has_one_device_a_chip_and_published_rates(name, slices, kind, chips):
    found = machine(parse_topology(name, slices))
    assert len(found.devices) == chips == found.topology.chips
    assert {device.device_kind for device in found.devices} == {kind}
    assert found.chip == CHIPS[kind]
    assert found.rates == "published"
    assert {slice_of(device, found.topology) for device in found.devices} == set(range(slices))


def test_simulated_devices_have_measured_rates():
    found = machine(parse_topology("cpu:4"))
    assert found.devices == jax.devices()[:4]
    assert found.rates == "measured"
    assert min(found.chip) > 0


def test_the_data_axis_goes_from_slice_to_slice():
    on = machine(parse_topology("v5e:2x2", 2))
    mesh = make_mesh(MeshConfig(2, 4, 1), on.devices)
    assert [{slice_of(device, on.topology) for device in row.flat} for row in mesh.devices] == [
        {0},
        {1},
    ]


def test_a_data_axis_that_does_not_reach_all_slices_is_refused_with_the_fix():
    on = machine(parse_topology("v5e:2x2", 2))
    with pytest.raises(ConfigError, match=r"--config\.mesh\.data=2"):
        make_mesh(MeshConfig(1, 8, 1), on.devices)


def test_without_sys_it_says_so_instead_of_being_aborted(tmp_path, monkeypatch):
    monkeypatch.setattr(topology, "CPUS", tmp_path / "possible")
    with pytest.raises(
        ConfigError, match=r"v5e:2x2: .*/possible, which is not here: mount -t sysfs sysfs /sys"
    ):
        prepare(parse_topology("v5e:2x2"))
    prepare(parse_topology("cpu:2"))


def test_every_entry_of_the_table_is_possible():
    for chip in CHIPS.values():
        assert chip.limit <= 1.01 * chip.memory
        assert chip.datacenter < chip.interconnect < chip.bandwidth < chip.flops
